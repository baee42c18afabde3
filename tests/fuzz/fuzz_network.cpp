// SPDX-License-Identifier: Apache-2.0
// Networks that the bytes describe: valid, corrupt in single fields, or of extreme geometry; then frames.
#include <cstdint>

#include "frames.h"
#include "random_model.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  fuzz::Bytes bytes(data, size);
  const fuzz::Model model = fuzz::any_model(bytes);
  fuzz::run_file(fuzz::write_onnx(model), bytes);
  return 0;
}
