// The CUDA kernels as loops on the host: what the tests compare with the torch twins.
#include "device.cu"
