#include <nanobind/nanobind.h>
NB_MODULE(_sequitur, m) {}
