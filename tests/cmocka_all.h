// cmocka needs these in this order.
#ifndef MM_TESTS_CMOCKA_ALL_H
#define MM_TESTS_CMOCKA_ALL_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#endif
