#include "bindings/array.h"

PYBIND11_MODULE(_core, m) {
  namespace b = pynn::bindings;
  b::bind_runtime(m);
  b::bind_gemm(m);
  b::bind_attention(m);
  b::bind_conv(m);
  b::bind_pool(m);
  b::bind_elementwise(m);
  b::bind_broadcast(m);
  b::bind_reduction(m);
  b::bind_layout(m);
  b::bind_loss(m);
  b::bind_norm(m);
  b::bind_dropout(m);
  b::bind_embedding(m);
  b::bind_recurrent(m);
  b::bind_optim(m);
  b::bind_packed_rows(m);
  b::bind_labels(m);
  b::bind_recording(m);
}
