/* flowBDT: events from an exported model, for C and for whatever can call C.
 * MIT licence, see LICENSE of flowBDT.
 *
 * Compile flowbdt_c.cpp (C++17) and link it. Functions that can fail return FLOWBDT_OK or another
 * code of flowbdt_status; flowbdt_last_error() then says what happened, in this thread.
 *
 * A handle must not be used by two threads at a time: give each thread its own by flowbdt_copy,
 * which shares the model.
 */
#ifndef FLOWBDT_C_H
#define FLOWBDT_C_H

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32) && defined(FLOWBDT_SHARED)
#define FLOWBDT_API __declspec(dllexport)
#else
#define FLOWBDT_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef struct flowbdt_handle flowbdt_handle;

typedef enum flowbdt_status {
  FLOWBDT_OK = 0,
  FLOWBDT_BAD_FILE = 1,     /* missing, damaged, of another version */
  FLOWBDT_BAD_ARGUMENT = 2, /* wrong number of conditions, an infinite one, a null pointer */
  FLOWBDT_BAD_EVENT = 3,    /* an event is not finite */
  FLOWBDT_FAILED = 4        /* anything else, such as no memory */
} flowbdt_status;

/* Opens a model file. On failure *handle is NULL. */
FLOWBDT_API flowbdt_status flowbdt_open(const char *path, flowbdt_handle **handle);

/* The same, but for events that are carried in float32: half of the time; needs the kernels. */
FLOWBDT_API flowbdt_status flowbdt_open_single(const char *path, flowbdt_handle **handle);

/* Makes another handle of the same model, for another thread. */
FLOWBDT_API flowbdt_status flowbdt_copy(const flowbdt_handle *of, flowbdt_handle **handle);

/* Frees a handle; NULL is allowed. */
FLOWBDT_API void flowbdt_close(flowbdt_handle *handle);

/* What the last failure in this thread was; never NULL. */
FLOWBDT_API const char *flowbdt_last_error(void);

FLOWBDT_API size_t flowbdt_n_columns(const flowbdt_handle *handle);
FLOWBDT_API size_t flowbdt_n_conditions(const flowbdt_handle *handle);
/* Standard normal numbers that an event is made of. */
FLOWBDT_API size_t flowbdt_n_latent(const flowbdt_handle *handle);
/* Names and units, valid as long as the handle; NULL for a number that is too large. */
FLOWBDT_API const char *flowbdt_column(const flowbdt_handle *handle, size_t number);
FLOWBDT_API const char *flowbdt_unit(const flowbdt_handle *handle, size_t number);
FLOWBDT_API const char *flowbdt_condition(const flowbdt_handle *handle, size_t number);
/* How many of cond (n_conditions) lie far outside of the training range, see Model::outside. */
FLOWBDT_API size_t flowbdt_outside(const flowbdt_handle *handle, const double *cond);
/* Share of attempts whose event is kept; 1 without rejection. */
FLOWBDT_API double flowbdt_acceptance(const flowbdt_handle *handle);
/* The number that stands for a text in a column or condition of categories. */
FLOWBDT_API flowbdt_status flowbdt_code(const flowbdt_handle *handle, const char *name,
                                        const char *text, double *code);

/* Writes event `number` of `seed` to out (n_columns), for cond (n_cond = n_conditions numbers, NaN
 * where unknown; NULL and 0 for a model without). */
FLOWBDT_API flowbdt_status flowbdt_one(flowbdt_handle *handle, const double *cond, size_t n_cond,
                                       uint64_t seed, uint64_t number, double *out);

/* Writes the n events from number `first` on to out (n, n_columns), row by row; cond is
 * (n, n_cond). They are those of flowbdt_one. */
FLOWBDT_API flowbdt_status flowbdt_many(flowbdt_handle *handle, size_t n, const double *cond,
                                        size_t n_cond, uint64_t seed, uint64_t first, double *out);

/* Writes the event that given standard normal numbers (n_latent) become, and to *acceptance the
 * probability with which it is to be kept, 1 without rejection; acceptance may be NULL. */
FLOWBDT_API flowbdt_status flowbdt_from_noise(flowbdt_handle *handle, const double *noise,
                                              const double *cond, size_t n_cond, double *out,
                                              double *acceptance);

/* The noise (n_latent) of attempt 0, 1, ... of an event, and the number in [0, 1) that must be
 * below its acceptance for the event to be kept. */
FLOWBDT_API flowbdt_status flowbdt_noise(const flowbdt_handle *handle, uint64_t seed,
                                         uint64_t number, uint64_t attempt, double *out);
FLOWBDT_API double flowbdt_uniform(uint64_t seed, uint64_t number, uint64_t attempt);

#ifdef __cplusplus
}
#endif

#endif /* FLOWBDT_C_H */
