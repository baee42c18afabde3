// SPDX-License-Identifier: Apache-2.0
// The engine of a C++ program: forwards to a Session.
#include "scn_fx/engine.h"

#include "engine/session.h"

namespace scn {

Engine::Engine(const std::string& path, const EngineOptions& options)
    : session_(std::make_unique<Session>(load_model(path), options)) {}

Engine::Engine(const void* bytes, size_t size, const EngineOptions& options)
    : session_(std::make_unique<Session>(parse_model(std::string(static_cast<const char*>(bytes), size)),
                                         options)) {}

Engine::~Engine() = default;
Engine::Engine(Engine&&) noexcept = default;
Engine& Engine::operator=(Engine&&) noexcept = default;

std::vector<Result> Engine::run(const FrameView& frame, std::vector<StageTime>* times) {
  return session_->run(frame, times);
}

int32_t Engine::input_channels() const {
  const Network& network = session_->plan().network;
  return network.values[size_t(network.features)].channels;
}

int Engine::ndim() const { return session_->plan().network.ndim; }
BufferBytes Engine::buffer_bytes() const { return session_->buffer_bytes(); }
int Engine::threads() const { return session_->threads(); }
std::string Engine::backend() const { return session_->backend(); }

void Engine::enqueue(const FrameView& frame, void* stream) { session_->enqueue(frame, stream); }
const std::vector<DeviceResult>& Engine::device_results() const { return session_->device().results(); }
void Engine::synchronize() { session_->device().synchronize(); }
int64_t Engine::sites_of(const DeviceResult& result) { return session_->device().sites_of(result); }

}  // namespace scn
