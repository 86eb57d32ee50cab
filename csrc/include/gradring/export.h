/* GRADRING_API marks what libgradring.so shows to the extension modules and to C programs; all else is hidden. */
#ifndef GRADRING_EXPORT_H
#define GRADRING_EXPORT_H

#ifdef __cplusplus
#define GRADRING_API [[gnu::visibility("default")]]
#else
#define GRADRING_API __attribute__((visibility("default")))
#endif

#endif
