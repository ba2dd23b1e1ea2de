# Programs that make data. The product does not need them.
pkg_check_modules(FREETYPE REQUIRED IMPORTED_TARGET freetype2)
file(GLOB SCENES_SOURCES CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/tools/scenes/*.c)
add_executable(scenes ${SCENES_SOURCES})
target_include_directories(scenes PRIVATE tools)
target_compile_definitions(scenes PRIVATE
  MM_SCENES_TABLE="${CMAKE_SOURCE_DIR}/tools/scenes/things.tsv")
target_link_libraries(scenes PRIVATE mmamba_lib PkgConfig::FREETYPE)
