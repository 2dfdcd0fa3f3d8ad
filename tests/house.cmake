# The rules of the house that a machine can check: cmake -DRULE=.. -DSOURCE=.. -DBUILD=.. -P house.cmake
cmake_minimum_required(VERSION 3.25)

function(symbols result)
    execute_process(COMMAND nm -P ${ARGN} OUTPUT_VARIABLE listing COMMAND_ERROR_IS_FATAL ANY)
    string(REGEX MATCHALL "(^|\n)[A-Za-z_][^ \n]* [A-Za-z]" listing "${listing}")
    list(TRANSFORM listing REPLACE "^\n?([^ ]*) .*$" "\\1")
    list(REMOVE_DUPLICATES listing)
    set(${result} ${listing} PARENT_SCOPE)
endfunction()

# The library exports qkv_* and nothing else.
function(exports)
    symbols(exported -D --defined-only ${BUILD}/libqkv.so)
    if(NOT "qkv_version" IN_LIST exported)
        message(SEND_ERROR "qkv_version is not exported")
    endif()
    list(FILTER exported EXCLUDE REGEX "^(qkv_|__odr_asan)")
    if(exported)
        message(SEND_ERROR "libqkv.so exports ${exported}")
    endif()
endfunction()

# The library neither ends the process, nor prints, nor starts a shell. (stdout is where a figure for
# the terminal goes unless told otherwise: that is asked for.)
function(imports)
    set(forbidden abort exit _exit _Exit quick_exit raise printf vprintf puts putchar perror psignal
        stderr system popen __assert_fail __printf_chk __vprintf_chk err errx warn warnx)
    symbols(imported -u ${BUILD}/libqkv.a)
    if(NOT "malloc" IN_LIST imported)
        message(SEND_ERROR "nm lists no import of malloc: this test reads the wrong thing")
    endif()
    foreach(name IN LISTS imported)
        if(name IN_LIST forbidden)
            message(SEND_ERROR "libqkv.a imports ${name}")
        endif()
    endforeach()
endfunction()

# FOLDER's sources include nothing that matches REGEX.
function(keeps_from folder regex)
    file(GLOB_RECURSE sources ${SOURCE}/${folder}/*.[ch])
    foreach(source IN LISTS sources)
        file(STRINGS ${source} includes REGEX "^#[ ]*include \"")
        foreach(include IN LISTS includes)
            string(REGEX REPLACE ".*\"(.*)\".*" "\\1" path "${include}")
            cmake_path(GET source PARENT_PATH directory)
            cmake_path(ABSOLUTE_PATH path BASE_DIRECTORY ${directory} NORMALIZE OUTPUT_VARIABLE beside)
            if(EXISTS ${beside})
                cmake_path(RELATIVE_PATH beside BASE_DIRECTORY ${SOURCE} OUTPUT_VARIABLE path)
            endif()
            if(path MATCHES "${regex}")
                message(SEND_ERROR "${source} includes ${path}")
            endif()
        endforeach()
    endforeach()
endfunction()

# examples, tests -> grad -> src -> include
function(arrows)
    keeps_from(include "^(src|grad|tests|examples)/")
    keeps_from(src "^(grad|tests|examples)/")
    keeps_from(grad "^(tests|examples)/")
    keeps_from(examples "^tests/")
endfunction()

# The top level has no other entries; dot-files, build folders and what the examples draw aside.
function(top_level)
    file(GLOB entries RELATIVE ${SOURCE} ${SOURCE}/*)
    list(FILTER entries EXCLUDE REGEX "^(\\.|build|figures$)")
    list(REMOVE_ITEM entries CMakeLists.txt CMakePresets.json include src grad examples tests README.md
        LICENSE compile_commands.json)
    if(entries)
        message(SEND_ERROR "the top level has ${entries}")
    endif()
endfunction()

# No line is longer than 100 columns, and clang-format 14 would change nothing; other versions differ
# in their taste.
function(format)
    file(GLOB_RECURSE sources ${SOURCE}/include/*.h ${SOURCE}/src/*.[ch] ${SOURCE}/grad/*.[ch]
        ${SOURCE}/examples/*.[ch] ${SOURCE}/tests/*.[ch] ${SOURCE}/tests/*.cpp)
    string(REPEAT "." 101 too_long) # comments and texts, which clang-format leaves alone
    foreach(source IN LISTS sources)
        file(STRINGS ${source} lines REGEX "${too_long}")
        if(lines)
            message(SEND_ERROR "${source} has a line of more than 100 columns: ${lines}")
        endif()
    endforeach()
    find_program(clang_format NAMES clang-format-14 clang-format)
    if(clang_format)
        execute_process(COMMAND ${clang_format} --version OUTPUT_VARIABLE version)
    endif()
    if(NOT version MATCHES "version 14\\.")
        message("SKIPPED: house_format needs clang-format 14, which is not here")
        return()
    endif()
    execute_process(COMMAND ${clang_format} --dry-run --Werror ${sources} RESULT_VARIABLE status)
    if(status)
        message(SEND_ERROR "run ${clang_format} -i on the files above")
    endif()
endfunction()

cmake_language(CALL ${RULE})
