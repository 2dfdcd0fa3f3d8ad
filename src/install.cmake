# `cmake --install`: the libraries and headers, find_package(qkv) and pkg-config qkv.
include(CMakePackageConfigHelpers)

set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/qkv)
install(DIRECTORY include/qkv TYPE INCLUDE FILES_MATCHING PATTERN "*.h")
foreach(library qkv qkv_static)
    install(TARGETS ${library} EXPORT ${library})
    install(EXPORT ${library} NAMESPACE qkv:: DESTINATION ${package_dir} FILE ${library}-target.cmake)
endforeach()

# The shared library needs nothing of its consumers; the static one is a component, since it does.
file(CONFIGURE OUTPUT qkv-config.cmake @ONLY CONTENT [[
include(${CMAKE_CURRENT_LIST_DIR}/qkv-target.cmake)
if("static" IN_LIST qkv_FIND_COMPONENTS)
    include(${CMAKE_CURRENT_LIST_DIR}/dependencies.cmake)
    include(${CMAKE_CURRENT_LIST_DIR}/qkv_static-target.cmake)
    set(qkv_static_FOUND TRUE)
endif()
foreach(component IN LISTS qkv_FIND_COMPONENTS)
    if(qkv_FIND_REQUIRED_${component} AND NOT qkv_${component}_FOUND)
        set(qkv_FOUND FALSE)
        set(qkv_NOT_FOUND_MESSAGE "qkv has no component ${component}; there is: static")
    endif()
endforeach()
]])
write_basic_package_version_file(${PROJECT_BINARY_DIR}/qkv-config-version.cmake
    COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/qkv-config.cmake ${PROJECT_BINARY_DIR}/qkv-config-version.cmake
    src/dependencies.cmake DESTINATION ${package_dir})

# Paths relative to the file itself, so that an installed tree can be moved.
set(pc_dir ${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig)
file(RELATIVE_PATH pc_include ${pc_dir} ${CMAKE_INSTALL_FULL_INCLUDEDIR})
# Libs.private and not Requires.private: what a static OpenBLAS would need (gfortran) is not there,
# and not needed, where the shared one is linked.
if(QKV_OPENBLAS_FOUND)
    list(JOIN QKV_OPENBLAS_LDFLAGS " " pc_openblas)
else()
    list(JOIN BLAS_LIBRARIES " " pc_openblas)
endif()
if(QKV_OPENMP AND OpenMP_C_FOUND)
    set(pc_openmp ${OpenMP_C_FLAGS})
endif()
file(CONFIGURE OUTPUT qkv.pc @ONLY CONTENT [[
libdir=${pcfiledir}/..
includedir=${pcfiledir}/@pc_include@

Name: qkv
Description: @PROJECT_DESCRIPTION@
Version: @PROJECT_VERSION@
Cflags: -I${includedir}
Libs: -L${libdir} -lqkv
Libs.private: @QKV_CSV_LIBRARY@ @QKV_LBFGS_LIBRARY@ @pc_openblas@ @pc_openmp@ -lm
]])
install(FILES ${PROJECT_BINARY_DIR}/qkv.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
