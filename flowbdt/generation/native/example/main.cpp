// Conditions in (an incident energy, a particle type, ...), events out.
//
//     ./example ../model.bin 5 1 50.0      five events of seed 1 at a first condition of 50.0
//
// A condition may be a number, `nan` where it is unknown, or the text of a category.

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "flowbdt.hpp"

namespace {

double value_of(const flowbdt::Model& model, std::size_t condition, const char* text) {
  const bool known = std::string(text) != "nan";
  if (known && condition < model.n_conditions() &&
      !model.categories(model.conditions()[condition]).empty())
    return model.code(model.conditions()[condition], text);
  char* end = nullptr;
  const double value = std::strtod(text, &end);
  if (*end != '\0') throw flowbdt::ArgumentError(std::string("not a number: ") + text);
  return value;
}

void run(int n_words, char** words) {
  const auto model = std::make_shared<const flowbdt::Model>(words[1]);
  const unsigned long n = std::strtoul(words[2], nullptr, 10);
  const unsigned long seed = std::strtoul(words[3], nullptr, 10);
  std::vector<double> cond;
  for (int i = 4; i < n_words; ++i) cond.push_back(value_of(*model, cond.size(), words[i]));

  for (std::size_t i = 0; i < model->n_columns(); ++i)
    std::printf("%s%s", i == 0 ? "" : ",", model->columns()[i].c_str());
  std::printf("\n");
  flowbdt::Generator generator(model);
  for (unsigned long number = 0; number < n; ++number) {
    const std::vector<double>& event = generator.one(cond, seed, number);
    for (std::size_t i = 0; i < event.size(); ++i)
      std::printf("%s%.9g", i == 0 ? "" : ",", event[i]);
    std::printf("\n");
  }
}

}  // namespace

int main(int n_words, char** words) {
  if (n_words < 4) {
    std::fprintf(stderr, "usage: %s model.bin EVENTS SEED [CONDITION ...]\n", words[0]);
    return 2;
  }
  try {
    run(n_words, words);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}
