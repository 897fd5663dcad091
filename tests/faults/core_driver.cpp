// Opens every file of arrays named on the command line as each part of a model, and uses what opens.
// Built with sanitizers, which end the process at the first wrong step; prints how many were used.

#include CORE

#include <cstdio>

namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

/// Numbers of all kinds, `Unknown` among them, in memory without room to spare.
template <class T>
std::unique_ptr<T[]> numbers(std::size_t size, bool unknown = false) {
  auto made = std::make_unique<T[]>(std::max<std::size_t>(size, 1));
  for (std::size_t i = 0; i < size; ++i)
    made[i] = static_cast<T>(unknown && i % 3 == 2 ? kNan : static_cast<double>(i % 7) / 7.0);
  return made;
}

void use_flow(const void* bytes, std::size_t size, std::size_t n, int& used) {
  std::size_t sizes[6];
  FlowbdtSteps* steps = nullptr;
  if (flowbdt_open_steps(nullptr, bytes, size, "file", &steps, sizes) == 0) {
    const auto x = numbers<double>(n * sizes[0]), cond = numbers<double>(n * sizes[1], n > 1);
    used += flowbdt_walk(steps, nullptr, x.get(), cond.get(), n) == 0;
    FlowbdtForm* form = nullptr;
    if (flowbdt_open_form(steps, bytes, size, "file", &form, sizes) == 0)
      flowbdt_walk(steps, form, x.get(), cond.get(), n);
    if (form != nullptr) flowbdt_close_form(form);
    flowbdt_close_steps(steps);
  }
  FlowbdtColumns* columns = nullptr;
  if (flowbdt_open_columns(nullptr, bytes, size, "file", &columns, sizes) == 0) {
    const auto z = numbers<double>(n * sizes[0], true), x = numbers<double>(n * sizes[1]);
    const auto cond = numbers<double>(n * sizes[2], true);
    std::size_t undefined;
    used += flowbdt_restore(columns, z.get(), cond.get(), x.get(), n, &undefined) == 0;
    const auto angles = numbers<double>(n, true);
    used += flowbdt_turn(columns, angles.get(), cond.get(), x.get(), n, &undefined) == 0;
    flowbdt_close_columns(columns);
  }
}

void use_trees(const void* bytes, std::size_t size, std::size_t n, int& used) {
  std::size_t sizes[4];
  for (const char* part : {"trees", "ratio"}) {
    FlowbdtTrees* trees = nullptr;
    if (flowbdt_open_trees(part, bytes, size, "file", &trees, sizes) != 0) continue;
    const auto x = numbers<float>(n * sizes[0], true), out = numbers<float>(n * sizes[1]);
    used += flowbdt_predict(trees, x.get(), n, out.get()) == 0;
    flowbdt_close_trees(trees);
  }
  FlowbdtDiscrete* discrete = nullptr;
  if (flowbdt_open_discrete(nullptr, bytes, size, "file", &discrete, sizes) == 0) {
    const auto x = numbers<double>(n * sizes[0], true), known = numbers<double>(n * sizes[1]);
    const auto uniform = numbers<double>(n * sizes[2]);
    const auto codes = numbers<std::int64_t>(n * sizes[2]);
    used += flowbdt_draw(discrete, x.get(), known.get(), uniform.get(), codes.get(), n) == 0;
    flowbdt_close_discrete(discrete);
  }
  FlowbdtShowers* showers = nullptr;
  if (flowbdt_open_showers(nullptr, bytes, size, "file", &showers, sizes) == 0) {
    const auto known = numbers<float>(n * sizes[1] * sizes[0], true);
    const auto layers = numbers<double>(n * sizes[1]), axes = numbers<double>(2 * n);
    const auto uniform = numbers<double>(n * sizes[3]), voxels = numbers<double>(n * sizes[2]);
    used += flowbdt_fill_showers(showers, known.get(), layers.get(), axes.get(), uniform.get(),
                                 n == 1 ? 0.0 : 0.01, n, voxels.get()) == 0;
    flowbdt_close_showers(showers);
  }
}

void use_export(const char* path, int& used) {
  try {
    flowbdt::Generator generator(std::make_shared<const flowbdt::Model>(path));
    const flowbdt::Model& model = generator.model();
    const auto cond = numbers<double>(5 * model.n_conditions(), true);
    const auto out = numbers<double>(5 * model.n_columns());
    generator.many(5, cond.get(), model.n_conditions(), 1, 0, out.get());
    used += 1;
  } catch (const flowbdt::Error&) {
  }
}

}  // namespace

int main(int count, char** paths) {
  for (int i = 1; i < count; ++i) {
    std::printf("%s", paths[i]);  // the last name is that of the file that ended the process
    std::fflush(stdout);
    std::ifstream stream(paths[i], std::ios::binary);
    const std::string content((std::istreambuf_iterator<char>(stream)), {});
    auto* bytes = static_cast<unsigned char*>(std::aligned_alloc(64, (content.size() + 63) / 64 * 64));
    std::memcpy(bytes, content.data(), content.size());
    int used = 0;
    for (const std::size_t n : {std::size_t{1}, std::size_t{5}}) {
      use_flow(bytes, content.size(), n, used);
      use_trees(bytes, content.size(), n, used);
    }
    use_export(paths[i], used);
    std::free(bytes);
    std::printf(" %d\n", used);
  }
}
