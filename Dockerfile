# SPDX-License-Identifier: Apache-2.0
# docker build -t scn-fx .                            the engine on the CPU, and the command scn-fx
# docker build -t scn-fx:cuda --target cuda .         the same with the CUDA backend
# --build-arg EXTRAS=all,spconv-cpu                   more of it, see docs/how-to/install.md
# --build-arg CUDA_ARCHS="80;90"                      machine code for these GPUs alone: a quicker build
ARG PYTHON=3.12
ARG CUDA=13.0.1

FROM python:${PYTHON}-slim-bookworm AS build
# The versions of Debian's packages go with the image.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY pyproject.toml CMakeLists.txt README.md LICENSE ./
COPY cmake cmake
COPY quant quant
COPY scn_fx scn_fx
RUN SCN_FX_CUDA=off pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM nvidia/cuda:${CUDA}-devel-ubuntu24.04 AS build-cuda
ARG CUDA_ARCHS=""
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends g++ python3-dev python3-venv && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /venv
WORKDIR /src
COPY pyproject.toml CMakeLists.txt README.md LICENSE ./
COPY cmake cmake
COPY quant quant
COPY scn_fx scn_fx
RUN SCN_FX_CUDA=on SCN_FX_CUDA_ARCHS="${CUDA_ARCHS}" /venv/bin/pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

# The driver comes from the host (--gpus all); the runtime is in the wheel.
FROM nvidia/cuda:${CUDA}-base-ubuntu24.04 AS cuda
ARG EXTRAS=cli
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends python3-venv && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /venv
ENV PATH=/venv/bin:$PATH
# hadolint ignore=DL3013
RUN --mount=type=bind,from=build-cuda,source=/wheels,target=/wheels \
    pip install --no-cache-dir --find-links /wheels "scn-fx[${EXTRAS}]"
RUN useradd --create-home --uid 10001 user
USER 10001
WORKDIR /data
ENTRYPOINT ["scn-fx"]
CMD ["--help"]

FROM python:${PYTHON}-slim-bookworm AS cpu
ARG EXTRAS=cli
# The wheel is the one of this build.
# hadolint ignore=DL3013
RUN --mount=type=bind,from=build,source=/wheels,target=/wheels \
    pip install --no-cache-dir --find-links /wheels "scn-fx[${EXTRAS}]"
RUN useradd --create-home --uid 10001 user
USER 10001
WORKDIR /data
ENTRYPOINT ["scn-fx"]
CMD ["--help"]
