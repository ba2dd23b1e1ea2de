# Programs that make data. The product does not need them.
if(MMAMBA_FUZZ)
  return()
endif()
pkg_check_modules(FREETYPE REQUIRED IMPORTED_TARGET freetype2)
file(GLOB SCENES_SOURCES CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/tools/scenes/*.c)
add_executable(scenes ${SCENES_SOURCES})
target_include_directories(scenes PRIVATE tools)
target_compile_definitions(scenes PRIVATE
  MM_SCENES_TABLE="${CMAKE_SOURCE_DIR}/tools/scenes/things.tsv")
target_link_libraries(scenes PRIVATE mmamba_lib PkgConfig::FREETYPE)

# Reads a world back, for tests/tools/test_scenes.sh.
add_executable(scenes_check tests/tools/scenes_check.c tests/tools/scene_answers.c)
target_link_libraries(scenes_check PRIVATE mmamba_lib)
set_target_properties(scenes_check PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)

add_executable(bars ${CMAKE_SOURCE_DIR}/tools/bars/main.c)
target_link_libraries(bars PRIVATE PkgConfig::CAIRO)
