// The C interface of flowbdt.hpp: no exception leaves it.

#define FLOWBDT_SHARED
#include "flowbdt_c.h"

#include "flowbdt.hpp"

struct flowbdt_handle {
  std::shared_ptr<const flowbdt::Model> model;
  flowbdt::Generator generator;

  explicit flowbdt_handle(std::shared_ptr<const flowbdt::Model> shared)
      : model(shared), generator(std::move(shared)) {}
};

namespace {

static_assert(FLOWBDT_BAD_FILE == flowbdt::detail::kBadFile &&
              FLOWBDT_BAD_ARGUMENT == flowbdt::detail::kBadArgument &&
              FLOWBDT_BAD_EVENT == flowbdt::detail::kBadEvent &&
              FLOWBDT_FAILED == flowbdt::detail::kFailed);

template <class Do>
flowbdt_status guarded(Do&& work) {
  return static_cast<flowbdt_status>(flowbdt::detail::guarded(std::forward<Do>(work)));
}

void need(const void* pointer, const char* what) {
  if (pointer == nullptr) throw flowbdt::ArgumentError(std::string(what) + " is needed, got NULL");
}

const char* text_of(const std::vector<std::string>& all, std::size_t number) {
  return number < all.size() ? all[number].c_str() : nullptr;
}

flowbdt_status opened(const char* path, flowbdt::Precision precision, flowbdt_handle** handle) {
  if (handle != nullptr) *handle = nullptr;
  return guarded([&] {
    need(path, "a path");
    need(handle, "room for the handle");
    *handle = new flowbdt_handle(std::make_shared<const flowbdt::Model>(path, precision));
  });
}

}  // namespace

flowbdt_status flowbdt_open(const char* path, flowbdt_handle** handle) {
  return opened(path, flowbdt::Precision::kDouble, handle);
}

flowbdt_status flowbdt_open_single(const char* path, flowbdt_handle** handle) {
  return opened(path, flowbdt::Precision::kSingle, handle);
}

flowbdt_status flowbdt_copy(const flowbdt_handle* of, flowbdt_handle** handle) {
  if (handle != nullptr) *handle = nullptr;
  return guarded([&] {
    need(of, "a handle");
    need(handle, "room for the handle");
    *handle = new flowbdt_handle(of->model);
  });
}

void flowbdt_close(flowbdt_handle* handle) { delete handle; }

const char* flowbdt_last_error(void) { return flowbdt::detail::last_error().c_str(); }

size_t flowbdt_n_columns(const flowbdt_handle* handle) {
  return handle == nullptr ? 0 : handle->model->n_columns();
}

size_t flowbdt_n_conditions(const flowbdt_handle* handle) {
  return handle == nullptr ? 0 : handle->model->n_conditions();
}

size_t flowbdt_n_latent(const flowbdt_handle* handle) {
  return handle == nullptr ? 0 : handle->model->n_latent();
}

const char* flowbdt_column(const flowbdt_handle* handle, size_t number) {
  return handle == nullptr ? nullptr : text_of(handle->model->columns(), number);
}

const char* flowbdt_unit(const flowbdt_handle* handle, size_t number) {
  return handle == nullptr ? nullptr : text_of(handle->model->units(), number);
}

const char* flowbdt_condition(const flowbdt_handle* handle, size_t number) {
  return handle == nullptr ? nullptr : text_of(handle->model->conditions(), number);
}

size_t flowbdt_outside(const flowbdt_handle* handle, const double* cond) {
  return handle == nullptr || cond == nullptr ? 0 : handle->model->outside(cond);
}

double flowbdt_acceptance(const flowbdt_handle* handle) {
  return handle == nullptr ? 0.0 : handle->model->acceptance();
}

flowbdt_status flowbdt_code(const flowbdt_handle* handle, const char* name, const char* text,
                            double* code) {
  return guarded([&] {
    need(handle, "a handle");
    need(name, "a name");
    need(text, "a text");
    need(code, "room for the code");
    *code = handle->model->code(name, text);
  });
}

flowbdt_status flowbdt_one(flowbdt_handle* handle, const double* cond, size_t n_cond, uint64_t seed,
                           uint64_t number, double* out) {
  return guarded([&] {
    need(handle, "a handle");
    need(out, "room for the event");
    handle->generator.one(cond, n_cond, seed, number, out);
  });
}

flowbdt_status flowbdt_many(flowbdt_handle* handle, size_t n, const double* cond, size_t n_cond,
                            uint64_t seed, uint64_t first, double* out) {
  return guarded([&] {
    need(handle, "a handle");
    need(out, "room for the events");
    handle->generator.many(n, cond, n_cond, seed, first, out);
  });
}

flowbdt_status flowbdt_from_noise(flowbdt_handle* handle, const double* noise, const double* cond,
                                  size_t n_cond, double* out, double* acceptance) {
  return guarded([&] {
    need(handle, "a handle");
    need(noise, "noise");
    need(out, "room for the event");
    const double kept = handle->generator.from_noise(noise, cond, n_cond, out);
    if (acceptance != nullptr) *acceptance = kept;
  });
}

flowbdt_status flowbdt_noise(const flowbdt_handle* handle, uint64_t seed, uint64_t number,
                             uint64_t attempt, double* out) {
  return guarded([&] {
    need(handle, "a handle");
    need(out, "room for the noise");
    handle->generator.noise(seed, number, attempt, out);
  });
}

double flowbdt_uniform(uint64_t seed, uint64_t number, uint64_t attempt) {
  return flowbdt::Generator::uniform(seed, number, attempt);
}
