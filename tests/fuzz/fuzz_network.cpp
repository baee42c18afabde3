// SPDX-License-Identifier: Apache-2.0
// Networks that the bytes describe: valid, corrupt in single fields, or of extreme geometry; then frames.
//
// SCN_FX_FUZZ_ONNX names a file that the network is written to, as an input of fuzz_onnx with the same
// frames: it stays the same when the way from bytes to networks changes.
#include <cstdint>
#include <cstdlib>
#include <fstream>

#include "frames.h"
#include "onnx_mutator.h"
#include "protobuf.h"
#include "random_model.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  fuzz::Bytes bytes(data, size);
  const fuzz::Model model = fuzz::any_model(bytes);
  const std::string onnx = fuzz::write_onnx(model);
  if (const char* path = std::getenv("SCN_FX_FUZZ_ONNX")) {
    std::string with_choices = onnx;
    fuzz::append_bytes(with_choices, fuzz::kChoices, bytes.rest());
    std::ofstream(path, std::ios::binary) << with_choices;
  }
  fuzz::run_file(onnx, bytes);
  return 0;
}
