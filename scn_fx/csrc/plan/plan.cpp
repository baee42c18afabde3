// SPDX-License-Identifier: Apache-2.0
#include "plan/plan.h"

#include "core/error.h"
#include "plan/passes.h"

namespace scn {
namespace {

const std::string kFeatures = "The features";

}  // namespace

const std::string& Plan::name_of(const Step& step) const {
  return step.node < 0 ? kFeatures : node_of(step).name;
}

const std::string& Plan::result_name_of(const Step& step) const {
  const Residual& residual = step.epilogue.residual;
  return residual ? network.nodes[size_t(residual.node)].name : name_of(step);
}

std::vector<int> Plan::maps_of(const Step& step) const {
  if (step.node < 0) return {};
  const NodeSpec& node = node_of(step);
  return node.map < 0 ? node.maps : std::vector<int>{node.map};
}

const char* step_kind(const Step& step) {
  switch (step.kind) {
    case Step::Kind::kLoad:
      return "load";
    case Step::Kind::kConvolution:
      return "convolution";
    case Step::Kind::kRows:
      return step.epilogue.residual      ? step.epilogue.residual.product ? "multiply" : "add"
             : step.epilogue.affine >= 0 ? "affine"
                                         : "activation";
    case Step::Kind::kConcat:
      return "concat";
    case Step::Kind::kGroupNorm:
      return "group_norm";
    case Step::Kind::kPool:
      return "pool";
    case Step::Kind::kUnion:
      return "union";
    case Step::Kind::kGlobalPool:
      return "global_pool";
    case Step::Kind::kScatterDense:
      return "scatter_dense";
    case Step::Kind::kTranspose:
      return "transpose";
  }
  return "";
}

void check_capabilities(const Plan& plan) {
  const BackendTraits& can = plan.traits;
  const Network& net = plan.network;
  if (net.sets.size() > size_t(can.most_sets)) {
    fail(ErrorKind::kArgument, net.maps[size_t(net.sets[size_t(can.most_sets)].map)].layer, ": with it, ",
         can.name, " would need more than ", can.most_sets, " sets of sites; the network has ",
         net.sets.size(), ". Run it on the CPU.");
  }
  int32_t growths = 0;
  for (const MapSpec& map : net.maps) {
    if (!map.makes_sites() || ++growths <= can.most_growths) continue;
    fail(ErrorKind::kArgument, map.layer, ": with it, ", can.name, " would make sites in more than ",
         can.most_growths, " ways (strided and transposed layers, sites that a union joins). ",
         "Run it on the CPU.");
  }
  for (const Step& step : plan.steps) {
    const size_t forms = step.epilogue.emissions.size();
    if (forms > size_t(can.most_emissions)) {
      fail(ErrorKind::kArgument, plan.result_name_of(step), ": ",
           step.node < 0 ? "they are" : "its result is", " read in ", forms, " different forms (ranges), ",
           can.name, " stores up to ", can.most_emissions,
           ". Calibrate the consumers with one range, or run the network on the CPU.");
    }
    if (step.kind != Step::Kind::kTranspose) continue;
    const NodeSpec& node = plan.node_of(step);
    if (node.dims.size() > size_t(can.most_axes)) {
      fail(ErrorKind::kArgument, node.name, ": ", can.name, " transposes up to ", can.most_axes,
           " axes, this has ", node.dims.size(), ". Run it on the CPU.");
    }
  }
}

Plan build_plan(Network network, const BackendTraits& traits, bool trace) {
  Plan plan;
  plan.network = std::move(network);
  plan.traits = traits;
  plan.trace = trace;
  Values values = list_steps(plan);
  fuse_adds(plan, values);
  choose_forms(plan, values);
  fuse_scatters(plan);
  place_memory(plan);
  check_capabilities(plan);
  return plan;
}

}  // namespace scn
