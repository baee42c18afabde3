// SPDX-License-Identifier: Apache-2.0
// How single operators run.
#pragma once

#include <new>
#include <string>

#include "core/error.h"
#include "python/caller.h"
#include "python/gil.h"
#include "python/shared_pool.h"

namespace scn::python {

/// Runs body() without the interpreter's lock.
template <typename Body>
auto run(const std::string& layer, const Body& body) {
  const GilRelease release;
  try {
    return body();
  } catch (const std::bad_alloc&) {
    fail(ErrorKind::kMemory, layer,
         ": this process gets no more memory. Use a smaller grid, batch or kernel, or fewer sites.");
  }
}

/// Runs body(pool) on that many threads.
template <typename Body>
auto run(const std::string& layer, Integer threads, const Body& body) {
  return run(layer, [&] {
    SharedPool pool(threads.number);
    return body(pool.get());
  });
}

}  // namespace scn::python
