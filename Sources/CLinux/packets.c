// Packet sockets (packet(7)), whose address structure has members that Swift does not import well, and the flags of an interface.
#include "CLinux.h"
#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <string.h>

int castor_packet_socket(const char *interface, uint16_t type)
{
    struct ifreq request = {0};
    struct sockaddr_ll address = {.sll_family = AF_PACKET, .sll_protocol = htons(type)};
    int saved, descriptor = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(type));

    if (descriptor < 0)
        return -1;
    strncpy(request.ifr_name, interface, sizeof(request.ifr_name) - 1);
    if (ioctl(descriptor, SIOCGIFINDEX, &request) < 0)
        goto failed;
    address.sll_ifindex = request.ifr_ifindex;
    if (ioctl(descriptor, SIOCGIFFLAGS, &request) < 0)
        goto failed;
    request.ifr_flags |= IFF_UP;
    if (ioctl(descriptor, SIOCSIFFLAGS, &request) < 0 || bind(descriptor, (struct sockaddr *)&address, sizeof(address)) < 0)
        goto failed;
    return descriptor;
failed:
    saved = errno;
    close(descriptor);
    errno = saved;
    return -1;
}
