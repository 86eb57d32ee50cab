#include "program/op_table.h"

namespace gradring {

const OpEntry* find_op(std::string_view name) noexcept {
  for (const OpSpan span :
       {matmul_ops(), matmul_update_ops(), element_ops(), loss_ops(), update_ops(), callback_ops(), check_ops()}) {
    for (const OpEntry* entry = span.begin; entry != span.end; ++entry) {
      if (entry->name == name) return entry;
    }
  }
  return nullptr;
}

}  // namespace gradring
