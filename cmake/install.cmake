# The shared library and what `make install` puts where.
include(GNUInstallDirs)

if(TARGET mmamba)
  install(TARGETS mmamba RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()

# The public header is the list of what the libraries offer: the shared one exports the functions
# it declares and hides the rest.
set(MMAMBA_HEADER ${CMAKE_SOURCE_DIR}/include/mmamba.h)
if(EXISTS ${MMAMBA_HEADER} AND NOT MMAMBA_ASAN AND NOT MMAMBA_FUZZ)
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${MMAMBA_HEADER})
  file(READ ${MMAMBA_HEADER} text)
  string(REGEX REPLACE "//[^\n]*" "" text "${text}")
  string(REGEX MATCHALL "mm[a-z0-9_]*_[a-z0-9_]+\\(" names "${text}")
  list(REMOVE_DUPLICATES names)
  string(REPLACE "(" "" names "${names}")
  list(JOIN names ";\n        " names)
  file(CONFIGURE OUTPUT mmamba.map CONTENT "{\n    global:\n        @names@;\n    local:\n        *;\n};\n"
    @ONLY)

  add_library(mmamba_shared SHARED $<TARGET_OBJECTS:mmamba_objects>)
  set_target_properties(mmamba_shared PROPERTIES OUTPUT_NAME mmamba
    VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION_MAJOR}
    LINK_DEPENDS ${CMAKE_BINARY_DIR}/mmamba.map)
  target_link_libraries(mmamba_shared PRIVATE $<TARGET_PROPERTY:mmamba_objects,LINK_LIBRARIES>)
  target_link_options(mmamba_shared PRIVATE
    -Wl,--version-script=${CMAKE_BINARY_DIR}/mmamba.map -Wl,--no-undefined)

  configure_file(cmake/mmamba.pc.in mmamba.pc @ONLY)
  install(TARGETS mmamba_lib mmamba_shared
    ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
  install(FILES ${MMAMBA_HEADER} DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
  install(FILES ${CMAKE_BINARY_DIR}/mmamba.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
endif()
