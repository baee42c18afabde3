// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <stdexcept>

#include "core/activation_info.h"
#include "plan/passes.h"

namespace scn {
namespace {

/// Steps store whole groups of channels, so columns that begin and end with one can be written beside others:
/// a vector of the CPU, and the longest run of channels that a lane of a GPU stores at once.
constexpr int32_t kColumnGroup = 16;

/// Finds the stored form that a reader wants, or adds it to what the value's step stores.
class Forms {
 public:
  Forms(Plan& plan, const Values& values) : plan_(plan), values_(values), stores_(values.roots.size()) {}

  /// What a node of `precision` reads of a value, in int8 with its range.
  View operand(int id, ElementType precision, float amax) {
    const Root& root = values_.roots[size_t(id)];
    if (precision == ElementType::kInt8) return store(root, ElementType::kInt8, amax, false);
    const bool rounds = precision == ElementType::kFloat16 || rounded(id);
    const bool half = precision == ElementType::kFloat16 || (rounds && plan_.traits.widens);
    return store(root, half ? ElementType::kFloat16 : ElementType::kFloat32, 0.0f, rounds);
  }

  /// A value as it is.
  View plain(int id) {
    const ElementType type = rounded(id) ? ElementType::kFloat16 : ElementType::kFloat32;
    return store(values_.roots[size_t(id)], type, 0.0f, rounded(id));
  }

  /// Emissions, by the step that makes the value, in the order of values.
  void attach() {
    // Concatenations first, as they may want further forms of their parts.
    for (size_t id = 0; id < stores_.size(); ++id) {
      if (!is_concat(plan_.network, int(id))) continue;
      for (int s : stores_[id]) join(int(id), s);
    }
    for (size_t id = 0; id < stores_.size(); ++id) {
      if (is_concat(plan_.network, int(id))) continue;
      for (int s : stores_[id]) {
        const Storage& storage = plan_.storages[size_t(s)];
        emit(root_behind(int(id), storage), {s, 0, storage.channels}, true);
      }
    }
  }

 private:
  bool rounded(int id) const { return plan_.network.values[size_t(values_.roots[size_t(id)].value)].half; }

  /// `exact`: of this type whatever its width.
  View store(const Root& root, ElementType type, float amax, bool rounds, bool exact = false) {
    const ValueSpec& value = plan_.network.values[size_t(root.value)];
    if (!exact && type == ElementType::kFloat16 && value.channels < plan_.traits.fewest_half_channels)
      type = ElementType::kFloat32;
    rounds = rounds || root.half;
    for (int s : stores_[size_t(root.value)]) {
      const Storage& have = plan_.storages[size_t(s)];
      if (have.type == type && have.affine == root.affine && have.affine_column == root.column &&
          have.activation == root.activation && have.rounded == rounds && have.amax == amax) {
        return {s, 0, value.channels};
      }
    }
    Storage storage;
    storage.channels = value.channels;
    storage.set = value.set;
    storage.type = type;
    storage.amax = amax;
    storage.affine = root.affine;
    storage.affine_column = root.column;
    storage.activation = root.activation;
    storage.rounded = rounds;
    storage.nonnegative = is_nonnegative(root);
    storage.row_bytes = plan_.traits.row_bytes(value.channels, type);
    plan_.storages.push_back(storage);
    const int s = int(plan_.storages.size()) - 1;
    stores_[size_t(root.value)].push_back(s);
    return {s, 0, value.channels};
  }

  /// What a storage of a value holds.
  static Root root_behind(int id, const Storage& s) {
    return {id, s.rounded, s.affine, s.affine_column, s.activation};
  }

  bool is_nonnegative(const Root& root) const {
    if (is_some(root.activation)) return info_of(root.activation.kind).nonnegative;
    if (root.affine >= 0) return false;
    if (is_concat(plan_.network, root.value)) {
      const std::vector<int>& parts = maker(root.value).inputs;
      return std::all_of(parts.begin(), parts.end(),
                         [&](int part) { return is_nonnegative(values_.roots[size_t(part)]); });
    }
    const Step& step = step_of(root.value);
    return !step.epilogue.residual && info_of(step.epilogue.activation.kind).nonnegative;
  }

  const NodeSpec& maker(int id) const {
    return plan_.network.nodes[size_t(plan_.network.values[size_t(id)].producer)];
  }
  Step& step_of(int id) const { return plan_.steps[size_t(values_.step_of[size_t(id)])]; }

  /// A stored form of what a step makes. Without others beside it, the last of a row fills it with zeros.
  void emit(const Root& root, const View& rows, bool last) {
    const Storage& storage = plan_.storages[size_t(rows.storage)];
    const bool half = plan_.network.values[size_t(root.value)].half;
    const int32_t element = element_bytes(storage.type), all = storage.row_bytes / element;
    Emission e;
    e.rows = rows;
    e.columns = rows.channels;
    if (last) {
      const int32_t padded = plan_.traits.row_bytes(rows.channels, storage.type) / element;
      e.columns = std::min(padded, all - rows.column);
      if (rows.column + e.columns < all) blanks_.push_back({rows.storage, rows.column + e.columns});
    }
    e.type = storage.type;
    e.factor = storage.type == ElementType::kInt8 ? int8_factor(storage.amax) : 0.0f;
    e.affine = root.affine;
    e.affine_column = root.column;
    e.activation = root.activation;
    e.rounds = storage.rounded || root.half;
    e.rounds_first = half && (root.affine >= 0 || !e.rounds || !info_of(root.activation.kind).commutes);
    step_of(root.value).epilogue.emissions.push_back(e);
  }

  /// A stored form of a concatenation: each part is stored in its place, or copied there.
  void join(int id, int s) {
    std::vector<Part> parts;
    const Storage& stored = plan_.storages[size_t(s)];
    const Root whole_value = root_behind(id, stored);
    if (!list_parts(plan_.network, values_, whole_value, parts))
      throw std::logic_error("a concatenation is stored behind what its parts cannot have behind them");
    Step& step = step_of(id);
    for (const Part& part : parts) {
      const bool last = &part == &parts.back();
      const View place{s, part.column, part.channels};
      if (part.column % kColumnGroup == 0 && (last || part.channels % kColumnGroup == 0)) {
        emit(part.root, place, last);
        continue;
      }
      const Storage& whole = plan_.storages[size_t(s)];
      step.copies.push_back({store(part.root, whole.type, whole.amax, whole.rounded, true), place});
      const int32_t all = plan_.storages[size_t(s)].row_bytes / element_bytes(plan_.storages[size_t(s)].type);
      const int32_t end = part.column + part.channels;
      if (last && end < all) blanks_.push_back({s, end});
    }
    for (const auto& [storage, first] : blanks_) {
      const Storage& row = plan_.storages[size_t(storage)];
      step.blanks.push_back({storage, first, row.row_bytes / element_bytes(row.type) - first});
    }
    blanks_.clear();
  }

  Plan& plan_;
  const Values& values_;
  std::vector<std::vector<int>> stores_;         // storages, by value
  std::vector<std::pair<int, int32_t>> blanks_;  // of the concatenation at hand: storage, first column
};

void read_operands(Plan& plan, Forms& forms, Step& step) {
  if (step.node < 0) return;
  const NodeSpec& node = plan.node_of(step);
  Residual& residual = step.epilogue.residual;
  switch (step.kind) {
    case Step::Kind::kConvolution:
      step.input = forms.operand(node.inputs[0], node.precision, node.amax[0]);
      break;
    case Step::Kind::kRows:
      if (node.kind == NodeKind::kAdd || node.kind == NodeKind::kMultiply) {
        residual.node = step.node;
        residual.product = node.kind == NodeKind::kMultiply;
        step.input = forms.operand(node.inputs[0], node.precision, node.amax[0]);
      } else {
        step.input = forms.plain(node.inputs[0]);
      }
      break;
    case Step::Kind::kPool:
    case Step::Kind::kGroupNorm:
    case Step::Kind::kGlobalPool:
    case Step::Kind::kScatterDense:
      step.input = forms.plain(node.inputs[0]);
      break;
    case Step::Kind::kUnion:
      for (int input : node.inputs) step.parts.push_back(forms.plain(input));
      break;
    default:
      break;
  }
  if (!residual) return;
  const NodeSpec& add = plan.network.nodes[size_t(residual.node)];
  const int self = residual.self_is_second, other = 1 - self;
  residual.other = forms.operand(add.inputs[size_t(other)], add.precision, add.amax[other]);
  residual.type = plan.storage_of(residual.other).type;
  residual.rounds = add.precision == ElementType::kFloat16;
  if (add.precision != ElementType::kInt8) return;
  residual.scales = add_scales(add.amax[self], add.amax[other]);
  if (residual.product) residual.scale = product_scale(add.amax[0], add.amax[1]);
}

}  // namespace

void choose_forms(Plan& plan, const Values& values) {
  Forms forms(plan, values);
  for (Step& step : plan.steps) read_operands(plan, forms, step);
  std::vector<int> outputs = plan.network.outputs;
  if (plan.trace) {
    outputs.clear();
    for (const NodeSpec& node : plan.network.nodes) outputs.push_back(node.output);
  }
  for (int id : outputs) {
    PlanOutput output;
    output.value = id;
    if (plan.network.values[size_t(id)].dense) {
      output.dense = values.dense_of[size_t(id)];
    } else {
      output.rows = forms.plain(id);
    }
    plan.outputs.push_back(output);
  }
  forms.attach();
  const auto idle = [](const Step& step) {
    return step.kind == Step::Kind::kConcat && step.copies.empty() && step.blanks.empty();
  };
  plan.steps.erase(std::remove_if(plan.steps.begin(), plan.steps.end(), idle), plan.steps.end());
}

}  // namespace scn
