# cmake --install: the library with its CMake and pkg-config files, the programs, the units.
include(CMakePackageConfigHelpers)

install(TARGETS pesc EXPORT pescTargets LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}
        ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(TARGETS pesc-cli RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(DIRECTORY include/pesc DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(EXPORT pescTargets NAMESPACE pesc:: DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/pesc)

configure_package_config_file(cmake/pescConfig.cmake.in
  ${CMAKE_CURRENT_BINARY_DIR}/pescConfig.cmake
  INSTALL_DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/pesc)
write_basic_package_version_file(${CMAKE_CURRENT_BINARY_DIR}/pescConfigVersion.cmake
                                 COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/pescConfig.cmake
              ${CMAKE_CURRENT_BINARY_DIR}/pescConfigVersion.cmake
        DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/pesc)

configure_file(cmake/pesc.pc.in ${CMAKE_CURRENT_BINARY_DIR}/pesc.pc @ONLY)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/pesc.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)

install(FILES scripts/systemd/pesc-coordinator.service scripts/systemd/pesc-worker.service
        DESTINATION lib/systemd/system)

# Completion is printed by the very program it completes.
if(NOT CMAKE_CROSSCOMPILING)
  foreach(shell bash zsh)
    add_custom_command(OUTPUT ${CMAKE_CURRENT_BINARY_DIR}/completion.${shell}
                       COMMAND pesc-cli completion ${shell}
                               > ${CMAKE_CURRENT_BINARY_DIR}/completion.${shell}
                       DEPENDS pesc-cli)
  endforeach()
  add_custom_target(pesc_completions ALL DEPENDS ${CMAKE_CURRENT_BINARY_DIR}/completion.bash
                                                 ${CMAKE_CURRENT_BINARY_DIR}/completion.zsh)
  install(FILES ${CMAKE_CURRENT_BINARY_DIR}/completion.bash
          DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions RENAME pesc)
  install(FILES ${CMAKE_CURRENT_BINARY_DIR}/completion.zsh
          DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/site-functions RENAME _pesc)
endif()
