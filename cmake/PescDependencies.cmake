# Every third-party package in one place, so that a missing one is named before anything compiles.
find_package(Threads REQUIRED)
find_package(PkgConfig REQUIRED)
find_package(CapnProto REQUIRED)
find_package(absl REQUIRED)
find_package(OpenSSL REQUIRED)
find_package(SQLite3 REQUIRED)
find_package(LibArchive REQUIRED)
find_package(ZLIB REQUIRED)
find_package(spdlog REQUIRED)
find_package(fmt REQUIRED)
find_package(CLI11 REQUIRED)
find_package(nlohmann_json REQUIRED)
pkg_check_modules(ZSTD REQUIRED IMPORTED_TARGET libzstd)
pkg_check_modules(TOMLPLUSPLUS REQUIRED IMPORTED_TARGET tomlplusplus)
find_path(ASIO_INCLUDE_DIR asio.hpp REQUIRED)

add_library(pesc_asio INTERFACE)
target_include_directories(pesc_asio SYSTEM INTERFACE ${ASIO_INCLUDE_DIR})
# Which allocator Asio 1.22 takes depends on what was included before it: two files of one program
# could allocate and free in two ways.
target_compile_definitions(pesc_asio INTERFACE ASIO_STANDALONE ASIO_NO_DEPRECATED
                                               ASIO_DISABLE_STD_ALIGNED_ALLOC)
target_link_libraries(pesc_asio INTERFACE Threads::Threads)
