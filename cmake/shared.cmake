# SPDX-License-Identifier: Apache-2.0
# libscn_fx.so beside the static library, of the same objects: it exports the public functions alone
# (docs/explanation/cpp-interface.md).
add_library(scn_engine_shared SHARED $<TARGET_OBJECTS:scn_engine>)
add_library(scn_fx::shared ALIAS scn_engine_shared)
# Before 1.0 every minor version may break programs; later, major versions alone.
set(scn_fx_soversion ${PROJECT_VERSION_MAJOR})
if(PROJECT_VERSION_MAJOR EQUAL 0)
  set(scn_fx_soversion ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR})
endif()
set_target_properties(scn_engine_shared PROPERTIES
  OUTPUT_NAME scn_fx EXPORT_NAME shared VERSION ${PROJECT_VERSION} SOVERSION ${scn_fx_soversion} LINKER_LANGUAGE CXX)
target_include_directories(scn_engine_shared INTERFACE $<BUILD_INTERFACE:${SCN_FX_CSRC}/include> $<INSTALL_INTERFACE:include>)
target_link_libraries(scn_engine_shared PRIVATE Threads::Threads)
if(SCN_FX_BUILD_CUDA)
  target_link_libraries(scn_engine_shared PRIVATE CUDA::cudart_static)
endif()
if(UNIX AND NOT APPLE)
  # Hidden symbols stay hidden; this hides the standard library's templates too, whose copies would meet those of a program.
  target_link_options(scn_engine_shared PRIVATE -Wl,--version-script=${CMAKE_CURRENT_LIST_DIR}/exports.map -Wl,--no-undefined)
  set_target_properties(scn_engine_shared PROPERTIES LINK_DEPENDS ${CMAKE_CURRENT_LIST_DIR}/exports.map)
endif()
