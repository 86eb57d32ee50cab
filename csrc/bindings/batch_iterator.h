// BatchIterator: the object behind `for batch in loader`. It reads a LoaderPipeline once, and holds the Pass.
#pragma once

#include <memory>

#include "bindings/loader_pipeline.h"

namespace gradring {

// A new reference to an iterator over the pass that `reading` has begun.
PyObject* new_batch_iterator(std::shared_ptr<LoaderPipeline> pipeline, py::object reading);

}  // namespace gradring
