# Builds and runs the consumer against qkv, used the way HOW says, in DIR, which is made afresh:
# cmake -DHOW=.. -DQKV_SOURCE=.. -DQKV_PREFIX=.. -DDIR=.. -DC_COMPILER=.. -DC_FLAGS=.. -P run.cmake
cmake_minimum_required(VERSION 3.25)

function(run)
    execute_process(COMMAND ${ARGV} COMMAND_ERROR_IS_FATAL ANY)
endfunction()

file(REMOVE_RECURSE ${DIR})
file(MAKE_DIRECTORY ${DIR}/bin)

if(HOW STREQUAL "pkg-config")
    separate_arguments(flags UNIX_COMMAND "${C_FLAGS}")
    file(GLOB_RECURSE pc ${QKV_PREFIX}/*/qkv.pc)
    cmake_path(GET pc PARENT_PATH pc_dir)
    set(ENV{PKG_CONFIG_PATH} ${pc_dir}:$ENV{PKG_CONFIG_PATH})
    set(ENV{LD_LIBRARY_PATH} ${pc_dir}/..)
    foreach(static "" --static)
        execute_process(COMMAND pkg-config ${static} --cflags --libs qkv OUTPUT_VARIABLE found
            OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
        if(static) # pkg-config says what else to link; which libqkv, the linker must be told
            string(REPLACE " -lqkv" " -l:libqkv.a" found "${found}")
        endif()
        separate_arguments(found UNIX_COMMAND "${found}")
        foreach(language c c++)
            run(${C_COMPILER} ${flags} -x ${language} -std=${language}17 -Wall -Wextra -Wpedantic -Werror
                ${CMAKE_CURRENT_LIST_DIR}/consumer.c -x none ${found}
                -o ${DIR}/bin/consumer${static}-${language})
        endforeach()
    endforeach()
else()
    # The C++ compiler that belongs to the C compiler: their OpenMP flags differ.
    string(REGEX REPLACE "clang(-?[0-9]*)$" "clang++\\1" cxx_compiler ${C_COMPILER})
    string(REGEX REPLACE "gcc(-?[0-9]*)$" "g++\\1" cxx_compiler ${cxx_compiler})
    string(REGEX REPLACE "/cc$" "/c++" cxx_compiler ${cxx_compiler})
    run(${CMAKE_COMMAND} -S ${CMAKE_CURRENT_LIST_DIR} -B ${DIR} -DHOW=${HOW} -DCMAKE_CXX_COMPILER=${cxx_compiler} -DQKV_SOURCE=${QKV_SOURCE}
        -DCMAKE_PREFIX_PATH=${QKV_PREFIX} -DCMAKE_C_COMPILER=${C_COMPILER} -DCMAKE_C_FLAGS=${C_FLAGS}
        -DCMAKE_CXX_FLAGS=${C_FLAGS})
    run(${CMAKE_COMMAND} --build ${DIR} --parallel 2)
endif()

file(GLOB programs ${DIR}/bin/*)
list(LENGTH programs count)
if(NOT count EQUAL 4)
    message(FATAL_ERROR "expected four programs, shared and static in C and C++, found: ${programs}")
endif()
foreach(program IN LISTS programs)
    run(${program})
endforeach()
