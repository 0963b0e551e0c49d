# The smallest guest that shows whether an accelerator runs what operating systems do: it goes from the reset vector
# through protected mode and paging into long mode, arms its local APIC timer, sleeps (hlt), takes three interrupts,
# and only then writes 42 to port 0xf4, which ends QEMU with exit code 85 (isa-debug-exit). A KVM that merely executes
# real-mode instructions has been seen to hang at the first of these steps.
#
# One page, mapped as the last of the ROM: 0xfffff000 to 0xffffffff. Memory below 0x7000 is its RAM.
.pushsection .rodata.antipode_probe_guest, "a", @progbits
.globl antipode_probe_guest
.hidden antipode_probe_guest
.code16
antipode_probe_guest:
.Lprobe_guest:
    cli
    lgdtl %cs:(4f - .Lprobe_guest + 0xf000)
    movl %cr0, %eax
    orb $1, %al
    movl %eax, %cr0
    ljmpl $8, $(1f - .Lprobe_guest + 0xfffff000)
.code32
1:  movl $16, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    # Empty page tables (0x1000 to 0x4fff) and interrupt table (0x5000 to 0x5fff).
    xorl %eax, %eax
    movl $0x1000, %edi
    movl $0x1400, %ecx
    cld
    rep stosl
    # Identity mapping of the first 2 MiB, the local APIC (uncached) and this ROM.
    movl $0x2003, 0x1000
    movl $0x3003, 0x2000
    movl $0x4003, 0x2018
    movl $0x83, 0x3000
    movl $0xfee00093, 0x4fb8
    movl $0xffe00083, 0x4ff8
    movl $0x1000, %eax
    movl %eax, %cr3
    movl %cr4, %eax
    orb $0x20, %al
    movl %eax, %cr4
    movl $0xc0000080, %ecx
    rdmsr
    orb $1, %ah
    wrmsr
    movl %cr0, %eax
    btsl $31, %eax
    movl %eax, %cr0
    ljmpl $24, $(2f - .Lprobe_guest + 0xfffff000)
.code64
2:  movl $0x7000, %esp
    # Interrupt 32 leads to the handler below.
    movl $(3f - .Lprobe_guest + 0xfffff000), %eax
    movw %ax, 0x5200
    movw $24, 0x5202
    movw $0x8e00, 0x5204
    shrl $16, %eax
    movw %ax, 0x5206
    lidt 5f(%rip)
    # Local APIC: on; timer divided by 1, periodic, vector 32.
    movl $0xfee00000, %eax
    movl $0x1ff, 0xf0(%rax)
    movl $0xb, 0x3e0(%rax)
    movl $0x20020, 0x320(%rax)
    movl $100000, 0x380(%rax)
    xorl %ebx, %ebx
    sti
6:  hlt
    jmp 6b
3:  incl %ebx
    movl $0, 0xb0(%rax)
    cmpb $3, %bl
    jne 7f
    movb $42, %al
    outb %al, $0xf4
7:  iretq
.balign 4
5:  .word 0xfff
    .quad 0x5000
.balign 4
4:  .word 31
    .long 8f - .Lprobe_guest + 0xfffff000
8:  .quad 0
    .quad 0x00cf9a000000ffff
    .quad 0x00cf92000000ffff
    .quad 0x00af9a000000ffff
# The reset vector.
.org 0xff0
.code16
    jmp .Lprobe_guest
.org 0x1000
.code64
.popsection
