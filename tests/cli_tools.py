"""What the tests of the command line share."""

from pynn import cli


def run(capsys, *argv):
    code = cli.main([str(argument) for argument in argv])
    out, err = capsys.readouterr()
    return code, out, err
