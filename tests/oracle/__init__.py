# SPDX-License-Identifier: Apache-2.0
"""An independent reference of sparse convolution networks: numpy alone, nothing imported from scn_fx.

It is written to be obviously right rather than fast: sorted keys for kernel maps, one matrix product per
kernel offset, and exact arithmetic wherever the numeric contract is exact. Its own tests check it against
dense convolutions and against hardware fused multiply-adds.
"""
