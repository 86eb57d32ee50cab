// The module _core: calls one function per topic.
#include "bindings/bindings.h"

PYBIND11_MODULE(_core, m, py::mod_gil_not_used()) {
  m.doc() = "gradring's native core. Use the package gradring, which checks and documents what it passes here.";
  gradring::bind_errors(m);
  gradring::bind_runtime(m);
  gradring::bind_arena(m);
  gradring::bind_eager_op(m);
  gradring::bind_sources(m);
  gradring::bind_program(m);
  gradring::bind_comm(m);
  gradring::bind_ranks(m);   // after bind_program and bind_comm, whose classes it uses
  gradring::bind_loader(m);  // after bind_program: LoaderFeed derives from its Feed
}
