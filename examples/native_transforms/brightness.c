/* cc -O3 -shared -fPIC -I"$(python -c 'import gradring; print(gradring.get_include())')" brightness.c -o brightness.so */
#include "gradring/row_transform.h"

int brightness(const void* from, int64_t from_bytes, void* to, int64_t to_bytes, int64_t sample, uint64_t random,
               void* user_data) {
  const float* x = from;
  float* y = to;
  const float factor = 0.8f + 0.4f * ((float)(random >> 40) * 0x1p-24f);
  (void)from_bytes, (void)sample, (void)user_data;
  for (int64_t i = 0; i < to_bytes / (int64_t)sizeof(float); ++i) y[i] = x[i] * factor;
  return 0;
}
