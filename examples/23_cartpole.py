"""Balance a pole on a cart by trial and error: REINFORCE (Williams 1992), and deep Q-learning (Mnih et al. 2013).

https://github.com/pytorch/examples/tree/main/reinforcement_learning; the cart is Gym's CartPole-v1 (Barto et al. 1983).
"""

import argparse
import math
import time
from collections.abc import Iterator

import numpy as np

import pynn
from pynn import functional as F
from pynn import nn, optim

PUBLISHED = 475  # mean reward over 100 episodes from which on Gym takes CartPole-v1 for solved
GAMMA = 0.99


def build_model() -> nn.Sequential:
    """Return 4-128-2: from a state to a number for each action."""
    return nn.Sequential(nn.Linear(4, 128), nn.ReLU(), nn.Linear(128, 2))


class CartPole:
    """A pole of 1 m and 0.1 kg stands on a cart of 1 kg, which is pushed left or right with 10 N every 20 ms."""

    def reset(self, rng: np.random.Generator) -> None:
        """Begin an episode; the state is position, speed, angle and angular speed."""
        self.steps, self.fallen = 0, False
        self.state = tuple(rng.uniform(-0.05, 0.05, 4).tolist())

    def step(self, action: int) -> bool:
        """Push left (0) or right (1); return whether the episode goes on, which it does for 500 steps at most."""
        x, dx, angle, dangle = self.state
        sin, cos = math.sin(angle), math.cos(angle)
        push = ((10 if action else -10) + 0.05 * dangle**2 * sin) / 1.1
        ddangle = (9.8 * sin - cos * push) / (0.5 * (4 / 3 - 0.1 * cos**2 / 1.1))
        ddx = push - 0.05 * ddangle * cos / 1.1
        self.state = (x + 0.02 * dx, dx + 0.02 * ddx, angle + 0.02 * dangle, dangle + 0.02 * ddangle)
        self.steps += 1
        self.fallen = abs(self.state[0]) > 2.4 or abs(self.state[2]) > math.radians(12)
        return not self.fallen and self.steps < 500


def reinforce(cart: CartPole, rng: np.random.Generator) -> Iterator[int]:
    """Play by chance, make likelier what was followed by more reward than usual; yield the reward of each episode."""
    policy = build_model()
    optimizer = optim.Adam(policy.parameters(), lr=3e-3)
    act = pynn.capture(pynn.no_grad()(lambda state: policy(state)))
    while True:
        cart.reset(rng)
        states, actions, going = [], [], True
        while going:
            states.append(cart.state)
            actions.append(int(pynn.categorical(act(np.array([cart.state], np.float32))[0])))
            going = cart.step(actions[-1])
        returns = (1 - GAMMA ** np.arange(cart.steps, 0, -1)) / (1 - GAMMA)  # each step is worth 1
        weights = ((returns - returns.mean()) / (returns.std() + 1e-6)).astype(np.float32)
        losses = F.cross_entropy(policy(np.array(states, np.float32)), np.array(actions), reduction="none")
        optimizer.zero_grad()
        (losses * weights).sum().backward()
        optimizer.step()
        yield cart.steps


def q_learning(cart: CartPole, rng: np.random.Generator) -> Iterator[int]:
    """Learn what an action is worth from remembered steps, and mostly take the best; yield each episode's reward."""
    network, target = build_model(), build_model()
    target.load_state_dict(network.state_dict())
    optimizer = optim.Adam(network.parameters(), lr=1e-3)
    act = pynn.capture(pynn.no_grad()(lambda state: network(state)))

    @pynn.capture
    def learn(state: pynn.Tensor, taken: pynn.Tensor, after: pynn.Tensor, stands: pynn.Tensor) -> None:
        with pynn.no_grad():
            worth = 1 + GAMMA * stands * target(after).max(axis=1)  # Bellman's equation
        loss = F.mse_loss((network(state) * taken).sum(axis=1), worth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    memory, n = np.zeros((50_000, 11), np.float32), 0  # state, the one after, one-hot action, whether the pole stands
    while True:
        cart.reset(rng)
        going = True
        while going:
            state, chance = cart.state, max(0.01, 1 - n / 5000)
            by_chance = rng.random() < chance
            action = int(rng.integers(2) if by_chance else act(np.array([state], np.float32)).argmax())
            going = cart.step(action)
            memory[n % len(memory)] = *state, *cart.state, action == 0, action == 1, not cart.fallen
            n += 1
            if n >= 1000:
                batch = memory[rng.integers(0, min(n, len(memory)), 128)]
                learn(batch[:, :4], batch[:, 8:10], batch[:, 4:8], batch[:, 10])
                for p, slow in zip(network.parameters(), target.parameters(), strict=True):
                    slow.data += 0.02 * (p.data - slow.data)  # a target that moves slowly keeps the learning stable
        yield cart.steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a mean reward of 60 is enough")
    parser.add_argument("--seed", type=int, default=0, help="of initial weights, states and actions (%(default)s)")
    args = parser.parse_args()
    start = time.perf_counter()
    for name, learner in {"REINFORCE": reinforce, "Q-learning": q_learning}.items():
        pynn.seed(args.seed)
        rewards, mean = [], 0.0
        for reward in learner(CartPole(), np.random.default_rng(args.seed)):
            rewards.append(reward)
            mean = np.mean(rewards[-100:])
            if len(rewards) == 2000 or (len(rewards) >= 100 and mean >= (60 if args.quick else PUBLISHED)):
                break
        print(f"{name}: mean reward {mean:.1f} of 100 episodes after {len(rewards)}   Gym {PUBLISHED}", flush=True)
    print(f"{time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    main()
