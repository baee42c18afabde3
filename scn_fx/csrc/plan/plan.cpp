// SPDX-License-Identifier: Apache-2.0
#include "plan/plan.h"

#include <algorithm>

#include "error.h"

namespace scn {
namespace {

using Kind = NodeSpec::Kind;

class Builder {
 public:
  Builder(Network network, bool trace) {
    plan_.network = std::move(network);
    plan_.trace = trace;
  }

  Plan build() {
    Network& net = plan_.network;
    step_of_node_.assign(net.nodes.size(), -1);
    stores_of_value_.resize(net.values.size());
    dense_of_value_.assign(net.values.size(), -1);
    uses_.assign(net.values.size(), 0);
    for (const NodeSpec& node : net.nodes) {
      for (int input : node.inputs) ++uses_[size_t(input)];
    }
    for (int output : net.outputs) ++uses_[size_t(output)];

    find_roots();
    plan_.steps.push_back({});
    plan_.steps[0].kind = Step::Kind::kLoad;
    for (size_t i = 0; i < net.nodes.size(); ++i) add_step(int(i));
    if (plan_.trace) {
      for (const NodeSpec& node : net.nodes) add_output(node.output);
    } else {
      for (int value : net.outputs) add_output(value);
    }
    attach_stores();
    assign_slots();
    return std::move(plan_);
  }

 private:
  const ValueSpec& value(int id) const { return plan_.network.values[size_t(id)]; }
  const NodeSpec& node(int id) const { return plan_.network.nodes[size_t(id)]; }

  /// The value whose step stores `id`, and whether a Relu lies between: a Relu is a stored form, never a
  /// step.
  std::pair<int, bool> root(int id) const { return roots_[size_t(id)]; }

  void find_roots() {
    for (size_t id = 0; id < plan_.network.values.size(); ++id) {
      const int producer = value(int(id)).producer;
      const bool relu = producer >= 0 && node(producer).kind == Kind::kRelu;
      // the input of a node is numbered before its output
      roots_.push_back(relu ? std::pair(root(node(producer).inputs[0]).first, true)
                            : std::pair(int(id), false));
    }
  }

  int store(int id, Format format, float amax, bool half) {
    const auto [source, relu] = root(id);
    half = half || value(source).half;
    for (int s : stores_of_value_[size_t(source)]) {
      const Storage& have = plan_.storages[size_t(s)];
      if (have.format == format && have.relu == relu && have.half == half &&
          (format != Format::kInt8 || have.amax == amax)) {
        return s;
      }
    }
    Storage storage;
    storage.value = source;
    storage.channels = value(source).channels;
    storage.set = value(source).set;
    storage.format = format;
    storage.amax = format == Format::kInt8 ? amax : 0.0f;
    storage.relu = relu;
    storage.half = half;
    storage.nonnegative = relu || is_nonnegative(source);
    plan_.storages.push_back(storage);
    const int s = int(plan_.storages.size()) - 1;
    stores_of_value_[size_t(source)].push_back(s);
    return s;
  }

  bool is_nonnegative(int id) const {
    const int producer = value(id).producer;
    return producer >= 0 && node(producer).kind == Kind::kConvolution && node(producer).relu;
  }

  /// The form in which a node of `precision` reads a value.
  int operand(int id, Precision precision, float amax) {
    if (precision == Precision::kInt8) return store(id, Format::kInt8, amax, false);
    return store(id, Format::kFloat32, 0.0f, precision == Precision::kFloat16);
  }

  void add_step(int id) {
    const NodeSpec& n = node(id);
    Step step;
    step.node = id;
    switch (n.kind) {
      case Kind::kRelu:
        return;
      case Kind::kReshape:
        dense_of_value_[size_t(n.output)] = dense_of_value_[size_t(n.inputs[0])];
        return;
      case Kind::kConvolution:
        step.kind = Step::Kind::kConvolution;
        step.input = operand(n.inputs[0], n.precision, n.amax[0]);
        break;
      case Kind::kAdd:
        if (fuse_add(id)) return;
        step.kind = Step::Kind::kAdd;
        step.input = operand(n.inputs[0], n.precision, n.amax[0]);
        step.other = operand(n.inputs[1], n.precision, n.amax[1]);
        break;
      case Kind::kScatterDense:
        step.kind = Step::Kind::kScatterDense;
        step.input = store(n.inputs[0], Format::kFloat32, 0.0f, false);
        step.dense_out = add_dense(n.output);
        break;
      case Kind::kTranspose:
        step.kind = Step::Kind::kTranspose;
        step.dense_in = dense_of_value_[size_t(n.inputs[0])];
        step.dense_out = add_dense(n.output);
        break;
    }
    plan_.steps.push_back(step);
    step_of_node_[size_t(id)] = int(plan_.steps.size()) - 1;
  }

  int add_dense(int id) {
    plan_.dense.push_back({id, value(id).half});
    return dense_of_value_[size_t(id)] = int(plan_.dense.size()) - 1;
  }

  /// Moves an Add into the epilogue of the convolution that makes one of its inputs, if nothing else reads
  /// that input and the other one exists by then.
  bool fuse_add(int id) {
    if (plan_.trace) return false;
    const NodeSpec& n = node(id);
    int chosen = -1, chosen_step = -1;
    for (int i = 0; i < 2; ++i) {
      const int producer = value(n.inputs[size_t(i)]).producer;
      if (producer < 0 || node(producer).kind != Kind::kConvolution ||
          uses_[size_t(n.inputs[size_t(i)])] != 1)
        continue;
      const int step = step_of_node_[size_t(producer)];
      if (step > chosen_step && producer_step(n.inputs[size_t(1 - i)]) < step) {
        chosen = i;
        chosen_step = step;
      }
    }
    if (chosen < 0) return false;
    Step& step = plan_.steps[size_t(chosen_step)];
    step.add = id;
    step.self_is_second = chosen == 1;
    step.other = operand(n.inputs[size_t(1 - chosen)], n.precision, n.amax[1 - chosen]);
    step_of_node_[size_t(id)] = chosen_step;
    return true;
  }

  int producer_step(int id) const {
    const int producer = value(root(id).first).producer;
    return producer < 0 ? 0 : step_of_node_[size_t(producer)];
  }

  void add_output(int id) {
    PlanOutput out;
    out.value = id;
    if (value(id).dense) {
      out.dense = dense_of_value_[size_t(id)];
    } else {
      out.storage = store(id, Format::kFloat32, 0.0f, false);
    }
    plan_.outputs.push_back(out);
  }

  void attach_stores() {
    for (size_t v = 0; v < stores_of_value_.size(); ++v) {
      for (int s : stores_of_value_[v]) {
        Storage& storage = plan_.storages[size_t(s)];
        storage.first = storage.last = producer_step(int(v));
        plan_.steps[size_t(storage.first)].stores.push_back(s);
      }
    }
    for (size_t i = 0; i < plan_.steps.size(); ++i) {
      for (int s : {plan_.steps[i].input, plan_.steps[i].other}) {
        if (s >= 0) plan_.storages[size_t(s)].last = std::max(plan_.storages[size_t(s)].last, int(i));
      }
    }
    std::vector<char> read_later(plan_.dense.size(), 0);
    for (size_t i = plan_.outputs.size(); i-- > 0;) {
      PlanOutput& out = plan_.outputs[i];
      if (out.dense < 0) continue;
      out.last = !read_later[size_t(out.dense)];
      read_later[size_t(out.dense)] = 1;
    }
    for (size_t i = plan_.steps.size(); i-- > 0;) {
      Step& step = plan_.steps[i];
      if (step.dense_in < 0) continue;
      step.last_use = !read_later[size_t(step.dense_in)];
      read_later[size_t(step.dense_in)] = 1;
    }
    for (const PlanOutput& out : plan_.outputs) {
      if (out.storage >= 0) plan_.storages[size_t(out.storage)].last = int(plan_.steps.size());
    }
  }

  /// Greedy interval colouring in the order of steps: a slot is free once its last reader's step has passed.
  void assign_slots() {
    std::vector<int> busy_until;
    std::vector<int> slot_set;
    for (size_t i = 0; i < plan_.steps.size(); ++i) {
      for (int s : plan_.steps[i].stores) {
        Storage& storage = plan_.storages[size_t(s)];
        int best = -1;
        for (size_t slot = 0; slot < busy_until.size(); ++slot) {
          if (busy_until[slot] < int(i) && (best < 0 || slot_set[slot] == storage.set)) best = int(slot);
        }
        if (best < 0) {
          best = int(busy_until.size());
          busy_until.push_back(0);
          slot_set.push_back(storage.set);
        }
        busy_until[size_t(best)] = storage.last;
        slot_set[size_t(best)] = storage.set;
        storage.slot = best;
      }
    }
    plan_.slots = int(busy_until.size());
  }

  Plan plan_;
  std::vector<int> step_of_node_, dense_of_value_, uses_;
  std::vector<std::pair<int, bool>> roots_;  // by value
  std::vector<std::vector<int>> stores_of_value_;
};

}  // namespace

AddScales add_scales(const NodeSpec& add, bool self_is_second) {
  const float self_amax = add.amax[self_is_second], other_amax = add.amax[!self_is_second];
  return {127.0f / self_amax, self_amax / 127.0f, other_amax / 127.0f};
}

Plan build_plan(Network network, bool trace) { return Builder(std::move(network), trace).build(); }

}  // namespace scn
