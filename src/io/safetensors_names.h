// File names of a model folder, shared by reading and writing.
#ifndef MM_IO_SAFETENSORS_NAMES_H
#define MM_IO_SAFETENSORS_NAMES_H

#define mm_st_single_name "model.safetensors"
#define mm_st_index_name "model.safetensors.index.json"

#endif
