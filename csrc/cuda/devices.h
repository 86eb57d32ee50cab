// Which CUDA devices there are, in words that need no CUDA header.
#pragma once

#include <string>
#include <vector>

namespace gradring::cuda {

struct Problem {
  int code = 0;      // of the CUDA runtime; 0: none
  std::string call;  // that returned it
  std::string name;  // of the code
  std::string text;  // what the runtime says of it
};

struct Device {
  std::string name;
  int major = 0, minor = 0;  // compute capability
  int processors = 0;
  size_t bytes = 0;
};

struct Devices {
  Problem problem;  // without a driver, with one that is too old, ...
  int driver_version = 0, runtime_version = 0;
  bool software = false;  // the test device
  std::vector<Device> devices;
};

Devices find_devices();

// Adds a number on the device and reads it back: whether the build has code that this device runs.
Problem try_device(int device);

}  // namespace gradring::cuda
