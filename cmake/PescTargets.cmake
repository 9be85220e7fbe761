# What every target of the house shares: warnings, sanitizers, include roots.
add_library(pesc_options INTERFACE)
target_compile_options(pesc_options INTERFACE -Wall -Wextra -Wno-missing-field-initializers
                                              -Wno-maybe-uninitialized  # false ones, from KJ
                                              -fno-semantic-interposition)
target_compile_definitions(pesc_options INTERFACE PESC_VERSION="${PROJECT_VERSION}")
target_include_directories(pesc_options INTERFACE ${PROJECT_SOURCE_DIR} ${PROJECT_SOURCE_DIR}/src
                                                  ${PROJECT_SOURCE_DIR}/include)
if(PESC_SANITIZE STREQUAL "address")
  # Without vptr: that check opens a pipe, and so fails where a test has used up the descriptors.
  target_compile_options(pesc_options INTERFACE -fsanitize=address,undefined -fno-sanitize=vptr
                                                -fno-sanitize-recover=undefined
                                                -fno-omit-frame-pointer)
  target_link_options(pesc_options INTERFACE -fsanitize=address,undefined)
elseif(PESC_SANITIZE STREQUAL "thread")
  target_compile_options(pesc_options INTERFACE -fsanitize=thread -fno-omit-frame-pointer)
  target_link_options(pesc_options INTERFACE -fsanitize=thread)
endif()

if(PESC_PLANTED_BUGS)
  target_compile_definitions(pesc_options INTERFACE PESC_PLANTED_BUGS)
endif()

# pesc_library(NAME LIBS...): a static library of all sources in the current folder. Folders are the
# units of the design (docs/architecture.md), so a file that is added needs no line here.
function(pesc_library name)
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.cc
       ${CMAKE_CURRENT_SOURCE_DIR}/*.h)
  list(FILTER sources EXCLUDE REGEX "_main\\.cc$")
  add_library(${name} STATIC ${sources})
  target_link_libraries(${name} PUBLIC ${ARGN} PRIVATE $<BUILD_INTERFACE:pesc_options>)
  target_include_directories(${name} PUBLIC $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}>
                                            $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/src>
                                            $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include>)
endfunction()
