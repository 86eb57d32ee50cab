// The counts of an engine as properties in Python. The engine of the CPU and that of a CUDA device have the same ones.
#pragma once

#include <pybind11/stl.h>

#include <array>
#include <string>

#include "bindings/engine_data.h"

namespace gradring {

// The sums of an epoch as numbers: loss, weight, right answers and samples, and then the same before the pending group.
py::tuple numbers_of(const TrainState& state);
void take_numbers(TrainState* state, const std::array<double, 8>& from);

template <class E>
void bind_counts(py::class_<E>& engine) {
  engine.def_property_readonly("lanes", [](E& e) { return e.team().lanes(); })
      .def_property(
          "updates", [](E& e) { return e.state().updates; }, [](E& e, int64_t n) { e.state().updates = n; })
      .def_property(
          "fresh", [](E& e) { return e.state().fresh; }, [](E& e, int64_t n) { e.state().fresh = n; },
          "Updates that were done when the optimizer's state was last zero: Adam counts from there.")
      .def_property(
          "seed", [](E& e) { return e.options().seed; }, [](E& e, uint64_t seed) { e.set_seed(seed); })
      .def_property(
          "draws", [](E& e) { return e.state().draws; }, [](E& e, uint64_t n) { e.state().draws = n; })
      .def_property(
          "pending", [](E& e) { return e.state().pending; },
          [](E& e, int64_t n) {
            if (n < 0 || n >= e.options().accumulate) {
              throw Error(Code::kInvalidArgument, "[Engine] pending is " + std::to_string(n) +
                                                      ": must be at least 0 and below accumulate, " +
                                                      std::to_string(e.options().accumulate));
            }
            e.state().pending = n;
          },
          "Batches whose gradients wait for the rest of their group; the gradients lie in their arena.")
      .def_property(
          "pending_weight", [](E& e) { return e.state().pending_weight; },
          [](E& e, double weight) { e.state().pending_weight = weight; })
      .def_property(
          "loss_scale", [](E& e) { return e.state().loss_scale; },
          [](E& e, double scale) { e.state().loss_scale = scale; },
          "What the gradient of the loss is multiplied by; 0 if this training scales no loss.")
      .def_property(
          "good_steps", [](E& e) { return e.state().good; }, [](E& e, int64_t n) { e.state().good = n; },
          "Updates since the scale of the loss has changed.")
      .def_property(
          "sums", [](E& e) { return numbers_of(e.state()); },
          [](E& e, const std::array<double, 8>& sums) { take_numbers(&e.state(), sums); },
          "Sums over the training batches since they were last set: loss, weight, right answers, samples; and then the "
          "same before the pending group.")
      .def(
          "drop_pending", [](E& e) { e.state().drop_pending(); },
          "Forget gradients that wait for an update, and that their batches were drawn.")
      .def("totals", [](E& e) { return totals_of(e.totals()); });
}

}  // namespace gradring
