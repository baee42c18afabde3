# SPDX-License-Identifier: Apache-2.0
# What `cmake --install` puts into a prefix: the library, the public headers, and a CMake package whose targets are
# scn_fx::engine and, if it was built, scn_fx::shared.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set(scn_fx_package ${CMAKE_INSTALL_LIBDIR}/cmake/scn_fx)
set_target_properties(scn_engine PROPERTIES EXPORT_NAME engine)
install(TARGETS scn_engine EXPORT scn_fx ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
if(SCN_FX_SHARED)
  install(TARGETS scn_engine_shared EXPORT scn_fx LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
endif()
install(DIRECTORY ${SCN_FX_CSRC}/include/scn_fx DESTINATION include)
install(EXPORT scn_fx NAMESPACE scn_fx:: FILE scn_fx-targets.cmake DESTINATION ${scn_fx_package})
configure_package_config_file(cmake/scn_fx-config.cmake.in ${CMAKE_CURRENT_BINARY_DIR}/scn_fx-config.cmake
                              INSTALL_DESTINATION ${scn_fx_package})
# Before 1.0, versions differ in their second number.
write_basic_package_version_file(${CMAKE_CURRENT_BINARY_DIR}/scn_fx-config-version.cmake
                                 COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/scn_fx-config.cmake
              ${CMAKE_CURRENT_BINARY_DIR}/scn_fx-config-version.cmake
        DESTINATION ${scn_fx_package})
