/* regression.h - Nadaraya-Watson kernel regression. */
#ifndef QKV_REGRESSION_H
#define QKV_REGRESSION_H
#endif
