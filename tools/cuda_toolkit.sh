#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Puts a CUDA compiler and its static runtime into a folder, from NVIDIA's wheels.
# Usage: tools/cuda_toolkit.sh FOLDER, then CUDA_HOME=FOLDER.
set -eu
folder=${1:?"the folder for the toolkit, as /opt/cuda"}
release=${CUDA_RELEASE:-13.0}
python=${PYTHON:-python3}

"$python" -m pip install --quiet --no-deps --target "$folder.wheels" \
  "nvidia-cuda-nvcc==$release.*" "nvidia-nvvm==$release.*" "nvidia-cuda-crt==$release.*" \
  "nvidia-cuda-runtime==$release.*" "nvidia-cuda-cccl==$release.*"
mkdir -p "$(dirname "$folder")"
mv "$folder.wheels/nvidia/cu${release%%.*}" "$folder"
rm -r "$folder.wheels"
# nvcc looks for libraries in lib64, CMake for libcudart.so; the wheels have neither name.
ln -s lib "$folder/lib64"
ln -s "libcudart.so.${release%%.*}" "$folder/lib/libcudart.so"
"$folder/bin/nvcc" --version
