// _core: a table of contents.
#include "bindings/bindings.h"

PYBIND11_MODULE(_core, m, py::mod_gil_not_used()) {
  m.doc() = "gradring's native core. Use the package gradring, which checks and documents what it passes here.";
  gradring::bind_errors(m);
  gradring::bind_runtime(m);
  gradring::bind_arena(m);
  gradring::bind_linear(m);
  gradring::bind_matmul(m);
  gradring::bind_sources(m);
  gradring::bind_activation(m);
  gradring::bind_softmax(m);
  gradring::bind_cross_entropy(m);
  gradring::bind_pointwise_loss(m);
  gradring::bind_dropout(m);
  gradring::bind_update(m);
  gradring::bind_program(m);
  gradring::bind_comm(m);
  gradring::bind_loader(m);  // after the feeds it derives from
}
