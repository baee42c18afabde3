// SPDX-License-Identifier: Apache-2.0
// What a shared library of the engine shows to programs; everything else in it is hidden.
#pragma once

#if defined(__GNUC__)
#define SCN_FX_EXPORT __attribute__((visibility("default")))
#else
#define SCN_FX_EXPORT
#endif
