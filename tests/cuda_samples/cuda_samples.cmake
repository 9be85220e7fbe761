# Included by tests/CMakeLists.txt: the samples' host parts, and their programs from outside, with
# CUDA where it is built and without it everywhere.
pesc_test(cuda_samples pesc_cuda_samples)
foreach(sample dijkstra option_pricing two_gpus)
  add_executable(cuda_samples_${sample} cuda_samples/programs/${sample}_main.cc)
  target_link_libraries(cuda_samples_${sample} PRIVATE pesc_cuda_samples pesc_options)
  set_target_properties(cuda_samples_${sample} PROPERTIES OUTPUT_NAME ${sample}
    RUNTIME_OUTPUT_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR}/cuda_samples_without_gpu)
endforeach()

function(cuda_samples_programs_test name directory)
  add_test(NAME cuda_samples.${name}
           COMMAND sh ${CMAKE_CURRENT_SOURCE_DIR}/cuda_samples/programs_test.sh)
  set_tests_properties(cuda_samples.${name} PROPERTIES TIMEOUT 180 ENVIRONMENT
                       "PESC_BIN=${PROJECT_BINARY_DIR}/bin;SAMPLES=${directory}")
endfunction()
cuda_samples_programs_test(programs_without_cuda
                           ${CMAKE_CURRENT_BINARY_DIR}/cuda_samples_without_gpu)
if(PESC_CUDA_SAMPLES_BUILT)
  cuda_samples_programs_test(programs ${PROJECT_BINARY_DIR}/cuda_samples)
endif()
