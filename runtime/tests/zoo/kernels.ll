; Kernels that go wrong, as LLVM's intermediate representation. The signature is that of
; `kernels.c`.

define i32 @ir_store(ptr %y, ptr %x, ptr %v, ptr %n, i64 %at, i32 %i) {
  %p = getelementptr double, ptr %v, i64 %at
  store volatile double 1.0, ptr %p
  ret i32 0
}

define i32 @ir_store_vector(ptr %y, ptr %x, ptr %v, ptr %n, i64 %at, i32 %i) {
  %p = getelementptr double, ptr %v, i64 %at
  store volatile <2 x double> <double 1.0, double 2.0>, ptr %p, align 8
  ret i32 0
}

define i32 @ir_gather(ptr %y, ptr %x, ptr %v, ptr %n, i64 %at, i32 %i) {
  %first = insertelement <4 x i64> <i64 0, i64 1, i64 2, i64 3>, i64 %at, i64 2
  %p = getelementptr float, ptr %x, <4 x i64> %first
  %got = call <4 x float> @llvm.masked.gather.v4f32.v4p0(<4 x ptr> %p, i32 4,
      <4 x i1> <i1 true, i1 true, i1 true, i1 true>, <4 x float> zeroinitializer)
  store volatile <4 x float> %got, ptr %y, align 4
  ret i32 0
}
declare <4 x float> @llvm.masked.gather.v4f32.v4p0(<4 x ptr>, i32, <4 x i1>, <4 x float>)

define i32 @ir_divide(ptr %y, ptr %x, ptr %v, ptr %n, i64 %at, i32 %i) {
  %by = trunc i64 %at to i32
  %q = udiv i32 %i, %by
  store volatile i32 %q, ptr %y
  ret i32 0
}

define i32 @ir_call(ptr %y, ptr %x, ptr %v, ptr %n, i64 %at, i32 %i) {
  %f = inttoptr i64 %at to ptr
  call void %f()
  store volatile i32 0, ptr %y
  ret i32 0
}

define i32 @ir_trap(ptr %y, ptr %x, ptr %v, ptr %n, i64 %at, i32 %i) {
  call void @llvm.trap()
  unreachable
}
declare void @llvm.trap()

define i32 @ir_good(ptr %y, ptr %x, ptr %v, ptr %n, i64 %at, i32 %i) {
  %w = load <8 x float>, ptr %x, align 4
  %s = fadd <8 x float> %w, %w
  store <8 x float> %s, ptr %y, align 4
  ret i32 0
}
