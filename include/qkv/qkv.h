/* qkv.h - all of qkv. Each header may be included by itself. */
#ifndef QKV_QKV_H
#define QKV_QKV_H

#include "attention.h"
#include "cache.h"
#include "gradcheck.h"
#include "npy.h"
#include "optim.h"
#include "parameters.h"
#include "plot.h"
#include "ragged.h"
#include "regression.h"
#include "second_order.h"
#include "status.h"
#include "summary.h"
#include "tape.h"

#endif
