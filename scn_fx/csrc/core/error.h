// SPDX-License-Identifier: Apache-2.0
// Errors are thrown by fail(), which puts their message together.
#pragma once

#include <cstdio>
#include <cstring>
#include <string>
#include <type_traits>

#include "scn_fx/error.h"

namespace scn {

// Text is put together without streams: in an interpreter that brings a second copy of the C++ library (as
// relocatable Python builds do), writing a number to a stream looks up the locale of the wrong copy and
// crashes.
/// Text of a file or a caller: control characters would cut a message or steer a terminal, and a name can be
/// as long as its file.
inline void append_text(std::string& out, const std::string& text) {
  constexpr size_t kMost = 1000;
  for (size_t i = 0; i < text.size() && i < kMost; ++i) {
    const unsigned char c = static_cast<unsigned char>(text[i]);
    if (c >= 0x20 && c != 0x7f) {
      out += text[i];
      continue;
    }
    char escaped[8];
    std::snprintf(escaped, sizeof(escaped), "\\x%02x", unsigned(c));
    out += escaped;
  }
  if (text.size() > kMost) out += "... (" + std::to_string(text.size()) + " characters)";
}
inline void append_text(std::string& out, const char* text) { out += text; }

template <typename Number, std::enable_if_t<std::is_arithmetic_v<Number>, int> = 0>
void append_text(std::string& out, Number number) {
  if constexpr (std::is_integral_v<Number>) {
    out += std::to_string(number);
  } else {
    char digits[32];
    std::snprintf(digits, sizeof(digits), "%.7g", double(number));
    // The decimal point is the locale's, of one byte or more; messages have one form.
    bool in_point = false;
    for (const char* at = digits; *at; ++at) {
      const bool point = !std::strchr("0123456789+-einfa", *at);
      if (!point) out += *at;
      if (point && !in_point) out += '.';
      in_point = point;
    }
  }
}

/// Throws an Error whose message is its arguments (strings and numbers), one after another.
template <typename... Parts>
[[noreturn]] void fail(ErrorKind kind, const Parts&... parts) {
  std::string message;
  (append_text(message, parts), ...);
  throw Error(kind, message);
}

}  // namespace scn
