// BatchIterator: the object behind `for batch in loader`. It reads a LoaderPipeline once, and holds the Python object Pass, which
// is the right to do so.
#pragma once

#include <memory>

#include "bindings/loader_pipeline.h"

namespace gradring {

// Makes an iterator over the pass that the Pass `reading` has begun. Returns a new reference.
PyObject* new_batch_iterator(std::shared_ptr<LoaderPipeline> pipeline, py::object reading);

}  // namespace gradring
