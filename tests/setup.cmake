# Does tests/setup tell an old tool from a new one, and half a set of libraries from a whole one, and
# how many jobs does it build with? The tools are fakes, first in PATH:
# cmake -DSOURCE=.. -DDIR=.. -P setup.cmake
cmake_minimum_required(VERSION 3.25)

# A program whose only deed is to print, and what more is given.
function(fake name prints)
    file(WRITE ${DIR}/${name} "#!/bin/sh\necho '${prints}'\n${ARGN}\n")
    file(CHMOD ${DIR}/${name} PERMISSIONS OWNER_READ OWNER_WRITE OWNER_EXECUTE)
endfunction()

# check_versions with tools of these versions dies with the message, or succeeds if there is none.
function(expect compiler cmake gcc clang message)
    fake(cmake "cmake version ${cmake}")
    fake(gcc ${gcc})
    fake(clang ${clang})
    execute_process(COMMAND env PATH=${DIR}:$ENV{PATH} sh -c ". tests/setup; check_versions ${compiler}" run
        WORKING_DIRECTORY ${SOURCE} RESULT_VARIABLE status OUTPUT_VARIABLE said ERROR_VARIABLE said)
    set(expected 0)
    if(message)
        set(expected 1)
        string(REGEX REPLACE "^([a-z]+)" "run: \\1 (${DIR}/\\1)" message "${message}\n")
    endif()
    if(NOT "${status} ${said}" STREQUAL "${expected} ${message}")
        message(SEND_ERROR "exit status ${status}: '${said}', expected ${expected}: '${message}'")
    endif()
endfunction()

file(REMOVE_RECURSE ${DIR})
expect(gcc 3.25.0 12.1.0 13.0.1 "")
expect(clang 3.25.1 9.5.0 14.0.0 "")
expect(gcc 4.0.2 100.1.0 20.1.0 "")
expect(gcc 3.24.4 12.2.0 14.0.6 "cmake is version '3.24.4', expected 3.25 or newer")
expect(clang 3.9.2 12.2.0 14.0.6 "cmake is version '3.9.2', expected 3.25 or newer")
expect(gcc 3.25.0 9.5.0 14.0.6 "gcc is version '9.5.0', expected 12 or newer")
expect(gcc 3.25.0 11.4.0 14.0.6 "gcc is version '11.4.0', expected 12 or newer")
expect(clang 3.25.0 12.2.0 13.0.1 "clang is version '13.0.1', expected 14 or newer")

# The build runs a job for each processor: without a number, make would start all of them at once.
fake(nproc 7)
fake(cmake "'\"$*\"'") # prints its arguments
execute_process(COMMAND env PATH=${DIR}:$ENV{PATH} sh -c ". tests/setup; build '${DIR}/built'" run
    WORKING_DIRECTORY ${SOURCE} OUTPUT_QUIET COMMAND_ERROR_IS_FATAL ANY)
file(STRINGS ${DIR}/built/build.log said)
set(expected "-S . -B ${DIR}/built;--build ${DIR}/built --parallel 7")
if(NOT said STREQUAL expected)
    message(SEND_ERROR "cmake was called with '${said}', expected '${expected}'")
endif()

# aarch64_libraries, with tools that do this, has this exit status and leaves libraries or nothing.
function(expect_libraries apt dpkg expected)
    file(REMOVE_RECURSE ${DIR})
    file(MAKE_DIRECTORY ${DIR}/build)
    fake(apt-get "" "${apt}")
    fake(dpkg "" "${dpkg}")
    execute_process(COMMAND env PATH=${DIR}:$ENV{PATH} sh -c ". ${SOURCE}/tests/setup; aarch64_libraries build/sysroot"
        WORKING_DIRECTORY ${DIR} RESULT_VARIABLE status OUTPUT_VARIABLE said)
    file(GLOB left RELATIVE ${DIR}/build ${DIR}/build/sysroot/*)
    if(NOT "${status} ${left}" STREQUAL "${expected}")
        message(SEND_ERROR "exit status ${status} and files '${left}', expected '${expected}'")
    endif()
endfunction()

set(fetch [[for x; do case $x in Dir::Cache=*) : >"${x#*=}/archives/x.deb" ;; esac; done]])
set(unpack [[mkdir -p "$3/usr"]])
expect_libraries("${fetch}" "${unpack}" "0 sysroot/usr")
expect_libraries("exit 100" "${unpack}" "1 ") # no archive has AArch64's packages
expect_libraries("${fetch}; for x; do [ $x != install ] || exit 100; done" "${unpack}" "1 ")
expect_libraries("${fetch}" "${unpack}; exit 2" "1 ") # the disk is full
