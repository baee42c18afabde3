// SPDX-License-Identifier: Apache-2.0
#include "cuda/convolution/finish_kind.h"

namespace scn::cuda {

FinishKind finish_kind(ElementType precision, const FinishView& f) {
  const bool int8 = precision == ElementType::kInt8;
  const EmissionView& first = f.emissions[0];
  bool floors = is_floor(f.activation);
  for (int32_t i = 0; i < f.emission_count; ++i)
    floors = floors && is_floor(f.emissions[i].activation) && !f.emissions[i].rounds_first &&
             !f.emissions[i].scale;
  if (!floors) return FinishKind::kAny;
  if (f.emission_count == 1 && first.dense && first.type == ElementType::kFloat16 && first.rounds &&
      !f.rounds && !f.residual.other) {
    return FinishKind::kHalfDense;
  }
  const ElementType wanted = int8 ? ElementType::kInt8 : ElementType::kFloat16;
  bool usual = !f.residual.other || (f.residual.type == wanted && (int8 || f.residual.rounds));
  usual = usual && (int8 ? !f.rounds : f.emission_count == 1);
  for (int32_t i = 0; i < f.emission_count; ++i) {
    const EmissionView& e = f.emissions[i];
    usual = usual && !e.dense && e.type == wanted && e.rounds == !int8;
  }
  return !usual ? FinishKind::kAny : int8 ? FinishKind::kInt8Rows : FinishKind::kHalfRows;
}

const char* finish_name(FinishKind kind) {
  switch (kind) {
    case FinishKind::kInt8Rows:
      return "int8 rows";
    case FinishKind::kHalfRows:
      return "half rows";
    case FinishKind::kHalfDense:
      return "half dense map";
    case FinishKind::kAny:
      break;
  }
  return "any finish";
}

}  // namespace scn::cuda
