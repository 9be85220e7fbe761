#include "common/json.h"

#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "common/text.h"

namespace samples {
namespace {

std::string quoted(const std::string& value) {
  std::string out = "\"";
  for (const char c : value) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      out += text("\\u%04x", static_cast<unsigned>(c));
    } else {
      out += c;
    }
  }
  return out + "\"";
}

}  // namespace

JsonObject& JsonObject::add_raw(const std::string& name, const std::string& value) {
  if (!members_.empty()) members_ += ",\n";
  members_ += "  " + quoted(name) + ": " + value;
  return *this;
}

JsonObject& JsonObject::add(const std::string& name, const std::string& value) {
  return add_raw(name, quoted(value));
}

JsonObject& JsonObject::add(const std::string& name, std::uint64_t value) {
  return add_raw(name, std::to_string(value));
}

JsonObject& JsonObject::add(const std::string& name, bool value) {
  return add_raw(name, value ? "true" : "false");
}

JsonObject& JsonObject::add(const std::string& name, double value) {
  if (!std::isfinite(value)) return add_raw(name, "null");
  std::string shortest;
  for (int digits = 6; digits <= 17; ++digits) {
    shortest = text("%.*g", digits, value);
    if (std::strtod(shortest.c_str(), nullptr) == value) break;
  }
  return add_raw(name, shortest);
}

}  // namespace samples
