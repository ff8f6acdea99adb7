// The naive twins of batch and layer normalisation, in double. Both normalise groups of values: the channels of
// [N, C, L], or the rows of [rows, cols] as the channels of [1, rows, cols] with a weight for each column.
#pragma once

#include <cmath>
#include <cstdint>

namespace pynn::reference {

struct NormSizes {
  int64_t batch, groups, length;
  bool weight_by_group;  // else by the place within `length`

  int64_t count() const { return batch * length; }
  int64_t at(int64_t group, int64_t i) const { return (i / length * groups + group) * length + i % length; }
  int64_t weight_at(int64_t group, int64_t i) const { return weight_by_group ? group : i % length; }
  int64_t weights() const { return weight_by_group ? groups : length; }
};

// mean and var [groups], var with divisor count
template <class T>
void moments(double* mean, double* var, const T* x, NormSizes s) {
  for (int64_t g = 0; g < s.groups; ++g) {
    long double sum = 0, squares = 0;
    for (int64_t i = 0; i < s.count(); ++i) sum += static_cast<long double>(x[s.at(g, i)]);
    const long double centre = sum / static_cast<long double>(s.count());
    for (int64_t i = 0; i < s.count(); ++i) {
      const long double d = static_cast<long double>(x[s.at(g, i)]) - centre;
      squares += d * d;
    }
    mean[g] = static_cast<double>(centre);
    var[g] = static_cast<double>(squares / static_cast<long double>(s.count()));
  }
}

template <class T>
void normalise(double* y, const T* x, const T* weight, const T* bias, const double* mean, const double* var, double eps,
               NormSizes s) {
  for (int64_t g = 0; g < s.groups; ++g) {
    for (int64_t i = 0; i < s.count(); ++i) {
      const double xhat = (double(x[s.at(g, i)]) - mean[g]) / std::sqrt(var[g] + eps);
      const int64_t w = s.weight_at(g, i);
      y[s.at(g, i)] = weight != nullptr ? xhat * double(weight[w]) + double(bias[w]) : xhat;
    }
  }
}

template <class T>
void normalise_backward(double* dx, double* dweight, double* dbias, const T* dy, const T* x, const T* weight,
                        const T* mean, const T* rstd, bool training, NormSizes s) {
  for (int64_t w = 0; w < s.weights(); ++w) dweight[w] = dbias[w] = 0;
  for (int64_t g = 0; g < s.groups; ++g) {
    const double r = double(rstd[g]), n = double(s.count());
    double along_one = 0, along_xhat = 0;
    for (int64_t i = 0; i < s.count(); ++i) {
      const int64_t at = s.at(g, i), w = s.weight_at(g, i);
      const double xhat = (double(x[at]) - double(mean[g])) * r;
      const double dxhat = double(dy[at]) * (weight != nullptr ? double(weight[w]) : 1);
      dweight[w] += double(dy[at]) * xhat;
      dbias[w] += double(dy[at]);
      along_one += dxhat / n;
      along_xhat += dxhat * xhat / n;
    }
    for (int64_t i = 0; i < s.count(); ++i) {
      const int64_t at = s.at(g, i), w = s.weight_at(g, i);
      const double xhat = (double(x[at]) - double(mean[g])) * r;
      const double dxhat = double(dy[at]) * (weight != nullptr ? double(weight[w]) : 1);
      dx[at] = r * (training ? dxhat - along_one - xhat * along_xhat : dxhat);
    }
  }
}

}  // namespace pynn::reference
