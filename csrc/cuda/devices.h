// Lists the CUDA devices, in types that need no CUDA header.
#pragma once

#include <string>
#include <vector>

namespace gradring::cuda {

struct Problem {
  int code = 0;      // an error code of the CUDA runtime; 0: no error
  std::string call;  // the function that returned the code
  std::string name;  // the name of the code
  std::string text;  // the runtime's description of the code
};

struct Device {
  std::string name;
  int major = 0, minor = 0;  // compute capability
  int processors = 0;
  size_t bytes = 0;
};

struct Devices {
  Problem problem;  // such as no driver, or one that is too old
  int driver_version = 0, runtime_version = 0;
  bool software = false;  // the test device
  std::vector<Device> devices;
};

Devices find_devices();

// Adds a number on the device and reads it back, to find out whether the build has code for this device.
Problem try_device(int device);

}  // namespace gradring::cuda
